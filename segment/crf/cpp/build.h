// A photo's pixels in tiles and simplices, and its two lattices: what the mean-field loop runs on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "field.h"
#include "mean_field.h"
#include "memory.h"
#include "team.h"

namespace segment_crf {

enum Which { kPosition, kBilateral };
constexpr int kCorners[2] = {3, 6};

// What the blur makes of a single value, by lattice.
constexpr float kAlpha[2] = {1 / 1.25f, 1 / 1.03125f};

// The pixels of one thread, and what it keeps of each lattice.
struct Part {
  size_t first_tile, last_tile, pixels;
  std::vector<Tile> tiles;
  std::vector<Run> runs;
  Raw<Pixel> pixel;
  Raw<uint32_t> order;
  std::vector<uint32_t> own_corners[2], corners[2], global[2];
  Raw<float> sums[2], unary, scratch, ratio[2];
  std::vector<float> lone[2];  // one value per own lattice point
  size_t own_points[2] = {0, 0};
};

struct Lattice {
  size_t points = 0;
  Raw<uint32_t> neighbours;  // (direction, point, side), row 0 stays zero
  Raw<float> rows, spare;
};

struct Field {
  std::vector<Part> parts;  // one per thread
  Lattice lattices[2];
};

// Fills all but the rows of lattices and the sums, unary and scratch of parts. `settings` must have
// widths for which keys stay in their fields.
void build(Field& field, Team& team, const Passes& passes, const Settings& settings,
           const uint8_t* photo, int height, int width);

}  // namespace segment_crf
