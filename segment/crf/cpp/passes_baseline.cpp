// The passes for every CPU: SSE2 on x86-64, NEON on arm64.
#include "passes.h"
#define NAME baseline
#define PLACE_WIDTH 4
#define WIDTH 4
#include "place.inc"
#include "passes.inc"
SEGMENT_CRF_PASSES(baseline)
