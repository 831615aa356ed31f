// What the passes over pixels and lattice points share: plain data, no standard library, because
// passes.inc is compiled once per instruction set and must not leave shared inline functions behind.
#pragma once

#include <cstddef>
#include <cstdint>

namespace segment_crf {

constexpr int kTile = 32;  // pixels per side: the lattice points of a tile stay in the first cache

constexpr int kMostClasses = 1024;

constexpr int kBatch = 16;  // pixels that are placed together

// Where pixels lie in a lattice of D dimensions.
template <int D>
struct Places {
  int32_t base[D + 1][kBatch];  // the simplex's corner of remainder 0
  uint32_t order[kBatch];       // ranks of the coordinates within the simplex, 3 bits each
  float weight[D + 1][kBatch];  // barycentric, of the corners by their remainder
};

// A pixel's place in both lattices: weights of the corners of the simplex it lies in.
struct Pixel {
  float position[3];
  float bilateral[6];
  uint32_t simplex;  // of the position lattice; that of the bilateral one is its run's
};

// Consecutive pixels in one simplex of the bilateral lattice.
struct Run {
  uint32_t simplex;
  uint32_t pixels;
};

struct Tile {
  size_t first_pixel, first_run;
};

// The pixels of one thread. Tile number `tiles` is a sentinel behind the last one.
struct Chunk {
  const Tile* tiles;
  size_t num_tiles;
  const Run* runs;
  const Pixel* pixels;     // in the order of their runs
  const uint32_t* order;   // the same pixels' numbers in the photo
  const uint32_t* corners[2];       // by simplex: rows of `blurred`
  const uint32_t* own_corners[2];   // by simplex: rows of `sums`
  float* sums[2];          // splatted Q, one row per lattice point that this thread touches
  float* unary;            // log2 of the clipped probabilities, pixels x classes, padded at the end
  const float* ratio[2];   // per pixel: weight of slicing over weight of splatting; null is 1
  float* scratch;          // one tile's pixels x classes, padded
};

struct Shape {
  size_t num_pixels;  // of the photo
  int classes;
  int stride;         // floats per lattice row: classes rounded up to the vector width
};

// Passes compiled for one instruction set.
struct Passes {
  const char* name;
  int width;  // floats per vector
  // Features, in widths, to places; `scale` is Elevation's.
  void (*place_position)(const float* scale, const float (&feature)[2][kBatch], Places<2>&);
  void (*place_bilateral)(const float* scale, const float (&feature)[5][kBatch], Places<5>&);
  // Takes probabilities (classes, pixels) to log2 p, and splats them.
  void (*start)(const Shape&, const Chunk&, const float* probabilities, float clip);
  // Slices, takes the softmax, and splats it again, or writes it where `out` is not null. False
  // where scores were too large: then it is to be done again, safely.
  bool (*step)(const Shape&, const Chunk&, const float* const blurred[2], bool safe, float* out);
  // One axis of the blur for rows [first, last): (old + (left + right) / 2) * scale.
  void (*blur)(const float* from, float* to, const uint32_t* neighbours, size_t first, size_t last,
               int stride, float scale);
  // to[map[i]] += from[i] for rows [first, last).
  void (*add)(const float* from, float* to, const uint32_t* map, size_t first, size_t last,
              int stride);
  // rows *= matrix, for a symmetric matrix (classes, stride).
  void (*mix)(float* rows, size_t first, size_t last, const Shape&, const float* matrix);
};

}  // namespace segment_crf
