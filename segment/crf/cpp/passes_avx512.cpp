// The passes for x86-64 with avx512; runnable() in mean_field.cpp asks the CPU first.
#if defined(__x86_64__)
#include <immintrin.h>

#include "passes.h"
#define NAME avx512
#define PLACE_WIDTH 8  // avx512 has FMA
#define WIDTH 16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#include "place.inc"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx2,fma")
#endif
#include "passes.inc"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
SEGMENT_CRF_PASSES(avx512)
#endif
