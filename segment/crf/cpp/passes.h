// The table of a file's passes.
#pragma once

#include "field.h"

#define SEGMENT_CRF_PASSES(word)                                                             \
  namespace segment_crf {                                                                    \
  extern const Passes passes_##word;                                                         \
  const Passes passes_##word = {#word,           WIDTH,           word::place<2>,            \
                                word::place<5>,  word::start_any, word::step_any,            \
                                word::blur_any,  word::add,       word::mix};                \
  }
