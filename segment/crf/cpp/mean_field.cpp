#include "mean_field.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "build.h"
#include "field.h"
#include "team.h"

namespace segment_crf {

extern const Passes passes_baseline;
#if defined(__x86_64__)
extern const Passes passes_avx2, passes_avx512;
#endif

namespace {

// What this CPU can run, the widest first.
std::vector<const Passes*> runnable() {
  std::vector<const Passes*> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    found.push_back(&passes_avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back(&passes_avx2);
#endif
  found.push_back(&passes_baseline);
  return found;
}

int padded(int classes, const Passes& passes) {
  return (classes + passes.width - 1) / passes.width * passes.width;
}

const Passes& choose(const std::string& name, int classes) {
  const std::vector<const Passes*> sets = runnable();
  // A row of 16 floats that is half empty takes longer than one of 8, and one of 32 than three.
  if (name.empty() && sets[0]->width == 16 && classes <= 24 &&
      padded(classes, *sets[1]) < padded(classes, *sets[0]))
    return *sets[1];
  for (const Passes* passes : sets)
    if (name.empty() || name == passes->name) return *passes;
  throw std::invalid_argument("this CPU has no instruction set " + name);
}

class MeanField {
 public:
  MeanField(const uint8_t* photo, int classes, int height, int width, const Settings& settings)
      : photo_(photo),
        height_(height),
        width_(width),
        settings_(settings),
        passes_(choose(settings.instruction_set, classes)),
        team_(std::max(1, std::min(settings.threads, static_cast<int>(
              (static_cast<size_t>(height) * width + 4095) / 4096)))) {
    if (classes > kMostClasses) throw std::invalid_argument("too many classes");
    shape_.num_pixels = static_cast<size_t>(height) * width;
    shape_.classes = classes;
    shape_.stride = padded(classes, passes_);
    parts_.resize(team_.size());
    // Below these widths even neighbours are strangers; keys would leave their fields.
    const float least = static_cast<float>(std::max(height, width)) * 1e-6f;
    settings_.position_px = std::max(settings_.position_px, least);
    settings_.bilateral_px = std::max(settings_.bilateral_px, least);
    settings_.bilateral_levels = std::max(settings_.bilateral_levels, 1e-3f);
  }

  void run(const float* probabilities, float* out) {
    build(field_, team_, passes_, settings_, photo_, height_, width_);
    allocate_rows();
    team_.run([&](int thread) {
      allocate(parts_[thread]);
      passes_.start(shape_, chunk(parts_[thread]), probabilities, settings_.clip);
    });
    for (int i = 1; i <= settings_.iterations; i++) {
      filter();
      const float* blurred[2] = {lattices_[0].rows.get(), lattices_[1].rows.get()};
      const bool last = i == settings_.iterations;
      for (bool done = false; !done;) {
        std::atomic<bool> fits{true};
        team_.run([&](int thread) {
          Part& part = parts_[thread];
          if (!last) blank(part);
          if (!passes_.step(shape_, chunk(part), blurred, safe_, last ? out : nullptr))
            fits = false;
        });
        done = fits;
        safe_ = safe_ || !fits;
      }
    }
  }

 private:
  void allocate_rows() {
    for (Lattice& lattice : lattices_) {
      const size_t floats = (lattice.points + 1) * shape_.stride;
      lattice.rows.allocate(floats);
      lattice.spare.allocate(floats);
      std::memset(lattice.rows.get(), 0, shape_.stride * sizeof(float));
      std::memset(lattice.spare.get(), 0, shape_.stride * sizeof(float));
    }
    if (settings_.compatibility) {
      const int classes = shape_.classes;
      matrix_.assign(static_cast<size_t>(classes) * shape_.stride, 0.0f);
      for (int a = 0; a < classes; a++)
        for (int b = 0; b < classes; b++)
          matrix_[a * shape_.stride + b] = -settings_.compatibility[a * classes + b];
    }
  }

  void allocate(Part& part) {
    // The last row of a chunk may be read and written past its end, up to a whole row.
    part.unary.allocate(part.pixels * shape_.classes + shape_.stride);
    part.scratch.allocate(size_t{kTile} * kTile * shape_.classes + shape_.stride);
    for (Which which : {kPosition, kBilateral})
      part.sums[which].allocate((part.own_points[which] + 1) * shape_.stride);
    blank(part);
  }

  void blank(Part& part) {
    for (Which which : {kPosition, kBilateral})
      std::memset(part.sums[which].get(), 0,
                  (part.own_points[which] + 1) * shape_.stride * sizeof(float));
  }

  Chunk chunk(Part& part) {
    Chunk chunk;
    chunk.tiles = part.tiles.data();
    chunk.num_tiles = part.tiles.size() - 1;
    chunk.runs = part.runs.data();
    chunk.pixels = part.pixel.get();
    chunk.order = part.order.get();
    for (Which which : {kPosition, kBilateral}) {
      chunk.corners[which] = part.corners[which].data();
      chunk.own_corners[which] = part.own_corners[which].data();
      chunk.sums[which] = part.sums[which].get();
      chunk.ratio[which] = part.ratio[which].get();
    }
    chunk.unary = part.unary.get();
    chunk.scratch = part.scratch.get();
    return chunk;
  }

  // From the threads' sums to blurred rows.
  void filter() {
    const int stride = shape_.stride;
    for (size_t p = 0; p < parts_.size(); p++)
      team_.run([&](int thread) {
        Part& part = parts_[p];
        for (Which which : {kPosition, kBilateral}) {
          Lattice& lattice = lattices_[which];
          const size_t rows = part.own_points[which] + 1;
          const size_t first = std::max<size_t>(1, Team::share(rows, thread, team_.size()));
          const size_t last = Team::share(rows, thread + 1, team_.size());
          if (p) {
            passes_.add(part.sums[which].get(), lattice.rows.get(), part.global[which].data(),
                        first, last, stride);
            continue;
          }
          if (first < last)
            std::memcpy(lattice.rows.get() + first * stride, part.sums[which].get() + first * stride,
                        (last - first) * stride * sizeof(float));
          if (thread == team_.size() - 1)
            std::memset(lattice.rows.get() + rows * stride, 0,
                        (lattice.points + 1 - rows) * stride * sizeof(float));
        }
      });
    constexpr float kLog2E = 1.44269504f;  // scores are logarithms to the base 2
    const float weight[2] = {settings_.position_weight, settings_.bilateral_weight};
    for (int direction = 0; direction < 6; direction++) {
      team_.run([&](int thread) {
        for (Which which : {kPosition, kBilateral}) {
          if (direction >= kCorners[which]) continue;
          Lattice& lattice = lattices_[which];
          const size_t rows = lattice.points + 1;
          const size_t first = std::max<size_t>(1, Team::share(rows, thread, team_.size()));
          const size_t last = Team::share(rows, thread + 1, team_.size());
          const bool end = direction + 1 == kCorners[which];
          passes_.blur(lattice.rows.get(), lattice.spare.get(),
                       lattice.neighbours.get() + 2 * direction * rows, first, last, stride,
                       end ? weight[which] * kAlpha[which] * kLog2E : 1.0f);
          if (end && settings_.compatibility)
            passes_.mix(lattice.spare.get(), first, last, shape_, matrix_.data());
        }
      });
      for (Which which : {kPosition, kBilateral})
        if (direction < kCorners[which]) std::swap(lattices_[which].rows, lattices_[which].spare);
    }
  }

  const uint8_t* photo_;
  int height_, width_;
  Settings settings_;
  const Passes& passes_;
  Shape shape_{};
  Team team_;
  Field field_;
  std::vector<Part>& parts_ = field_.parts;
  Lattice (&lattices_)[2] = field_.lattices;
  std::vector<float> matrix_;
  bool safe_ = false;  // whether scores have been too large for exp once
};

}  // namespace

void mean_field(const uint8_t* photo, const float* probabilities, int classes, int height,
                int width, const Settings& settings, float* out) {
  MeanField(photo, classes, height, width, settings).run(probabilities, out);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Passes* passes : runnable()) names.push_back(passes->name);
  return names;
}

}  // namespace segment_crf
