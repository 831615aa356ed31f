// Mean field in a fully connected CRF, filtered on permutohedral lattices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace segment_crf {

enum class Normalization { kSymmetric, kAfter, kBefore, kNone };

struct Settings {
  int iterations;  // 1 or more
  float clip;
  float position_px, position_weight;
  float bilateral_px, bilateral_levels, bilateral_weight;
  Normalization normalization;
  const float* compatibility;  // (classes, classes), symmetric; null is Potts
  int threads;
  std::string instruction_set;  // one of instruction_sets(), or empty for the fastest
};

// Photo (height, width, 3) and probabilities (classes, height, width) to `out`, shaped as the
// latter. Throws std::bad_alloc, and std::invalid_argument beyond kMostClasses or for an
// instruction set that this CPU lacks.
void mean_field(const uint8_t* photo, const float* probabilities, int classes, int height,
                int width, const Settings& settings, float* out);

// Those that mean_field can use on this CPU, the widest first.
std::vector<std::string> instruction_sets();

}  // namespace segment_crf
