#include "mean_field.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "field.h"
#include "lattice.h"
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

const Passes& choose(const std::string& name) {
  for (const Passes* passes : runnable())
    if (name.empty() || name == passes->name) return *passes;
  throw std::invalid_argument("this CPU has no instruction set " + name);
}

// Memory that is not written before it is used; std::vector would fill it twice.
template <class T>
class Raw {
 public:
  void allocate(size_t count) { data_.reset(new T[count]); }
  void free() { data_.reset(); }
  T* get() { return data_.get(); }
  T& operator[](size_t i) { return data_[i]; }

 private:
  std::unique_ptr<T[]> data_;
};

enum Which { kPosition, kBilateral };
constexpr int kCorners[2] = {3, 6};

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

class MeanField {
 public:
  MeanField(const uint8_t* photo, int classes, int height, int width, const Settings& settings)
      : photo_(photo),
        height_(height),
        width_(width),
        settings_(settings),
        passes_(choose(settings.instruction_set)),
        team_(std::max(1, std::min(settings.threads, static_cast<int>(
              (static_cast<size_t>(height) * width + 4095) / 4096)))),
        across_((width + kTile - 1) / kTile),
        down_((height + kTile - 1) / kTile) {
    if (classes > kMostClasses) throw std::invalid_argument("too many classes");
    shape_.num_pixels = static_cast<size_t>(height) * width;
    shape_.classes = classes;
    shape_.stride = (classes + passes_.width - 1) / passes_.width * passes_.width;
    parts_.resize(team_.size());
    // Below these widths even neighbours are strangers; keys would leave their fields.
    const float least = static_cast<float>(std::max(height, width)) * 1e-6f;
    settings_.position_px = std::max(settings_.position_px, least);
    settings_.bilateral_px = std::max(settings_.bilateral_px, least);
    settings_.bilateral_levels = std::max(settings_.bilateral_levels, 1e-3f);
  }

  void run(const float* probabilities, float* out) {
    build();
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
  void build() {
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      const size_t tiles = static_cast<size_t>(across_) * down_;
      part.first_tile = Team::share(tiles, thread, team_.size());
      part.last_tile = Team::share(tiles, thread + 1, team_.size());
      part.pixels = 0;
      for (size_t t = part.first_tile; t < part.last_tile; t++) part.pixels += tile_pixels(t);
      part.pixel.allocate(part.pixels);
      part.order.allocate(part.pixels);
      part.tiles.reserve(part.last_tile - part.first_tile + 1);
    });
    const double across = width_ / settings_.bilateral_px, down = height_ / settings_.bilateral_px;
    const double levels = 255 / settings_.bilateral_levels;
    if (settings_.bilateral_weight == 0)
      team_.run([&](int thread) { raster(parts_[thread]); });
    else if (Elevation<5>().reach({across, down, levels, levels, levels}) <
             Keys<5, uint64_t>::kReach)
      build_bilateral<uint64_t>();
    else
      build_bilateral<unsigned __int128>();
    if (settings_.position_weight == 0)
      team_.run([&](int thread) { without_position(parts_[thread]); });
    else
      build_position();
    for (Which which : {kPosition, kBilateral}) normalize(which);
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      for (Which which : {kPosition, kBilateral}) part.lone[which] = {};
    });
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

  size_t tile_pixels(size_t tile) const {
    const int x = static_cast<int>(tile % across_) * kTile, y = static_cast<int>(tile / across_) * kTile;
    return static_cast<size_t>(std::min(kTile, width_ - x)) * std::min(kTile, height_ - y);
  }

  // Numbers of a tile's pixels in the photo, row by row.
  size_t tile_numbers(size_t tile, uint32_t* numbers) const {
    const int x0 = static_cast<int>(tile % across_) * kTile;
    const int y0 = static_cast<int>(tile / across_) * kTile;
    size_t count = 0;
    for (int y = y0; y < std::min(y0 + kTile, height_); y++)
      for (int x = x0; x < std::min(x0 + kTile, width_); x++)
        numbers[count++] = static_cast<uint32_t>(y) * width_ + x;
    return count;
  }

  // Without the bilateral kernel: all pixels in a simplex whose corners are nothing.
  void raster(Part& part) {
    size_t at = 0;
    for (size_t t = part.first_tile; t < part.last_tile; t++) {
      part.tiles.push_back({at, part.runs.size()});
      const size_t count = tile_numbers(t, &part.order[at]);
      for (size_t i = 0; i < count; i++) std::fill_n(part.pixel[at + i].bilateral, 6, 0.0f);
      part.runs.push_back({0, static_cast<uint32_t>(count)});
      at += count;
    }
    part.tiles.push_back({at, part.runs.size()});
    part.own_corners[kBilateral].assign(6, 0);
    part.corners[kBilateral].assign(6, 0);
  }

  void without_position(Part& part) {
    for (size_t i = 0; i < part.pixels; i++) {
      std::fill_n(part.pixel[i].position, 3, 0.0f);
      part.pixel[i].simplex = 0;
    }
    part.own_corners[kPosition].assign(3, 0);
    part.corners[kPosition].assign(3, 0);
  }

  // Adds a simplex: the numbers of its corners, by remainder.
  template <int D, class Word>
  static void add_corners(const Places<D>& at, int lane, Word base, Points<Word>& points,
                          std::vector<uint32_t>& corners) {
    using K = Keys<D, Word>;
    int by_rank[D + 1] = {};
    for (int i = 0; i <= D; i++) by_rank[static_cast<int>(at.rank[i][lane])] = i;
    Word key = base;
    for (int remainder = 0;; remainder++) {
      corners.push_back(points.find_or_add(key));
      if (remainder == D) return;
      key += K::ones() - static_cast<Word>(D + 1) * K::axis(by_rank[D - remainder]);
    }
  }

  template <int D>
  static uint32_t order_code(const Places<D>& at, int lane) {
    uint32_t code = 0;
    for (int i = 0; i <= D; i++) code = code << 3 | static_cast<uint32_t>(at.rank[i][lane]);
    return code;
  }

  template <class Word>
  void build_bilateral() {
    using K = Keys<5, Word>;
    std::vector<Points<Word>> found(parts_.size());
    float level[256];
    for (int i = 0; i < 256; i++) level[i] = static_cast<float>(i) / settings_.bilateral_levels;
    const Elevation<5> elevation;
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      Points<Word>& points = found[thread];
      constexpr int kMost = kTile * kTile;
      Simplices<Word, kMost> simplices;
      std::vector<uint32_t> number(kMost), simplex(kMost), count(kMost + 1);
      std::vector<float> weight(6 * (kMost + kBatch));
      std::vector<uint32_t>& corners = part.own_corners[kBilateral];
      size_t first = 0;
      for (size_t t = part.first_tile; t < part.last_tile; t++) {
        const size_t pixels = tile_numbers(t, number.data());
        const uint32_t known = static_cast<uint32_t>(corners.size() / 6);
        simplices.begin();
        std::fill(count.begin(), count.end(), 0);
        for (size_t i = 0; i < pixels; i += kBatch) {
          float feature[5][kBatch];
          for (int l = 0; l < kBatch; l++) {
            const uint32_t p = number[std::min(i + l, pixels - 1)];
            feature[0][l] = static_cast<float>(p % width_) / settings_.bilateral_px;
            feature[1][l] = static_cast<float>(p / width_) / settings_.bilateral_px;
            for (int c = 0; c < 3; c++) feature[2 + c][l] = level[photo_[3 * size_t{p} + c]];
          }
          Places<5> at;
          elevation.place(feature, at);
          for (int l = 0; l < kBatch; l++)
            for (int k = 0; k < 6; k++) weight[6 * (i + l) + k] = at.weight[k][l];
          for (int l = 0; l < kBatch && i + l < pixels; l++) {
            const Word base = K::from(at.base, l);
            const auto [which, is_new] = simplices.find_or_add(base, order_code(at, l));
            if (is_new) add_corners(at, l, base, points, corners);
            simplex[i + l] = which;
            count[which + 1]++;
          }
        }
        part.tiles.push_back({first, part.runs.size()});
        for (uint32_t s = 0; s < simplices.size(); s++) {
          part.runs.push_back({known + s, count[s + 1]});
          count[s + 1] += count[s];
        }
        for (size_t i = 0; i < pixels; i++) {
          const size_t to = first + count[simplex[i]]++;
          part.order[to] = number[i];
          std::copy_n(&weight[6 * i], 6, part.pixel[to].bilateral);
        }
        first += pixels;
      }
      part.tiles.push_back({first, part.runs.size()});
    });
    join<5, Word>(kBilateral, found);
  }

  void build_position() {
    using K = Keys<2, uint64_t>;
    std::vector<Points<uint64_t>> found(parts_.size());
    const Elevation<2> elevation;
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      Points<uint64_t>& points = found[thread];
      Simplices<uint64_t, kTile * kTile> simplices;
      std::vector<uint32_t>& corners = part.own_corners[kPosition];
      for (size_t t = 0; t + 1 < part.tiles.size(); t++) {
        const size_t last = part.tiles[t + 1].first_pixel;
        const uint32_t known = static_cast<uint32_t>(corners.size() / 3);
        simplices.begin();
        for (size_t i = part.tiles[t].first_pixel; i < last; i += kBatch) {
          float feature[2][kBatch];
          for (int l = 0; l < kBatch; l++) {
            const uint32_t p = part.order[std::min(i + l, last - 1)];
            feature[0][l] = static_cast<float>(p % width_) / settings_.position_px;
            feature[1][l] = static_cast<float>(p / width_) / settings_.position_px;
          }
          Places<2> at;
          elevation.place(feature, at);
          for (int l = 0; l < kBatch && i + l < last; l++) {
            const uint64_t base = K::from(at.base, l);
            const auto [which, is_new] = simplices.find_or_add(base, order_code(at, l));
            if (is_new) add_corners(at, l, base, points, corners);
            Pixel& pixel = part.pixel[i + l];
            pixel.simplex = known + which;
            for (int k = 0; k < 3; k++) pixel.position[k] = at.weight[k][l];
          }
        }
      }
    });
    join<2, uint64_t>(kPosition, found);
  }

  // Numbers the points of all threads together, and finds their neighbours.
  template <int D, class Word>
  void join(Which which, std::vector<Points<Word>>& found) {
    Points<Word>& all = found[0];  // the first thread's points keep their numbers
    for (size_t p = 0; p < parts_.size(); p++) {
      Part& part = parts_[p];
      part.own_points[which] = p ? found[p].size() : all.size();
      part.global[which].resize(part.own_points[which] + 1);
      part.global[which][0] = 0;
      for (size_t i = 1; i <= part.own_points[which]; i++)
        part.global[which][i] = p ? all.find_or_add(found[p].key(i)) : static_cast<uint32_t>(i);
    }
    Lattice& lattice = lattices_[which];
    lattice.points = all.size();
    const size_t rows = lattice.points + 1;
    lattice.neighbours.allocate((D + 1) * rows * 2);
    uint32_t* neighbours = lattice.neighbours.get();
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      part.corners[which].resize(part.own_corners[which].size());
      for (size_t i = 0; i < part.corners[which].size(); i++)
        part.corners[which][i] = part.global[which][part.own_corners[which][i]];
      const size_t first = Team::share(rows, thread, team_.size());
      const size_t last = Team::share(rows, thread + 1, team_.size());
      for (int direction = 0; direction <= D; direction++) {
        const Word step = Keys<D, Word>::step(direction);
        for (size_t i = first; i < last; i++) {
          uint32_t* sides = neighbours + 2 * (direction * rows + i);
          sides[0] = i ? all.find(all.key(i) + step) : 0;
          sides[1] = i ? all.find(all.key(i) - step) : 0;
        }
      }
    });
  }

  // Filters ones, and puts what follows from it into the pixels' weights.
  void normalize(Which which) {
    if (settings_.normalization == Normalization::kNone || !lattices_[which].points) return;
    const int corners = kCorners[which];
    Lattice& lattice = lattices_[which];
    const size_t rows = lattice.points + 1;
    std::vector<float> sums(rows, 0.0f), other(rows, 0.0f);
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      part.lone[which].assign(part.own_points[which] + 1, 0.0f);
      each_pixel(part, which, [&](size_t, float* weight, size_t simplex) {
        for (int k = 0; k < corners; k++)
          part.lone[which][part.own_corners[which][corners * simplex + k]] += weight[k];
      });
    });
    for (Part& part : parts_)
      for (size_t i = 1; i <= part.own_points[which]; i++)
        sums[part.global[which][i]] += part.lone[which][i];
    for (int direction = 0; direction < corners; direction++) {
      const uint32_t* sides = lattice.neighbours.get() + 2 * direction * rows;
      team_.run([&](int thread) {
        for (size_t i = std::max<size_t>(1, Team::share(rows, thread, team_.size()));
             i < Team::share(rows, thread + 1, team_.size()); i++)
          other[i] = sums[i] + 0.5f * (sums[sides[2 * i]] + sums[sides[2 * i + 1]]);
      });
      sums.swap(other);
    }
    const float alpha = this->alpha(which);
    const Normalization form = settings_.normalization;
    team_.run([&](int thread) {
      Part& part = parts_[thread];
      if (form != Normalization::kSymmetric) part.ratio[which].allocate(part.pixels);
      each_pixel(part, which, [&](size_t i, float* weight, size_t simplex) {
        float total = 0;
        for (int k = 0; k < corners; k++)
          total += weight[k] * sums[part.corners[which][corners * simplex + k]];
        total = total * alpha + 1e-20f;
        const float splat = form == Normalization::kSymmetric ? 1 / std::sqrt(total)
                            : form == Normalization::kBefore  ? 1 / total
                                                              : 1.0f;
        for (int k = 0; k < corners; k++) weight[k] *= splat;
        if (form == Normalization::kAfter) part.ratio[which][i] = 1 / total;
        if (form == Normalization::kBefore) part.ratio[which][i] = total;
      });
    });
  }

  template <class Visit>
  static void each_pixel(Part& part, Which which, Visit visit) {
    size_t i = 0;
    for (const Run& run : part.runs)
      for (const size_t end = i + run.pixels; i < end; i++) {
        Pixel& pixel = part.pixel[i];
        if (which == kPosition)
          visit(i, pixel.position, pixel.simplex);
        else
          visit(i, pixel.bilateral, run.simplex);
      }
  }

  static float alpha(Which which) { return which == kPosition ? 1 / 1.25f : 1 / 1.03125f; }

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
                       end ? weight[which] * alpha(which) : 1.0f);
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
  int across_, down_;
  std::vector<Part> parts_;
  Lattice lattices_[2];
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
