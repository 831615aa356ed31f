#include "build.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "lattice.h"

namespace segment_crf {
namespace {

// The lattice points of one thread and one kernel, as its tiles find them.
template <int D, class Word>
class Finder {
 public:
  explicit Finder(std::vector<uint32_t>& corners) : corners_(corners), simplices_(kTile * kTile) {}

  void begin_tile() {
    known_ = static_cast<uint32_t>(corners_.size() / (D + 1));
    simplices_.begin();
  }

  // The numbers of a batch's simplices within the tile, those of its first `count` pixels.
  void find(const Places<D>& at, size_t count, uint32_t* simplex) {
    Word key[kBatch];
    Keys<D, Word>::from(at.base, key);
    for (size_t l = 0; l < count; l++) {
      const auto [which, is_new] = simplices_.find_or_add(key[l], at.order[l]);
      if (is_new) add_corners(key[l], at.order[l]);
      simplex[l] = which;
    }
  }

  uint32_t known() const { return known_; }  // simplices of earlier tiles
  uint32_t in_tile() const { return simplices_.size(); }
  Points<Word>& points() { return points_; }

 private:
  // Adds a simplex: the numbers of its corners, by remainder.
  void add_corners(Word base, uint32_t order) {
    using K = Keys<D, Word>;
    int by_rank[8] = {};
    for (int i = D; i >= 0; i--, order >>= 3) by_rank[order & 7] = i;
    Word key = base;
    for (int remainder = 0;; remainder++) {
      corners_.push_back(points_.find_or_add(key));
      if (remainder == D) return;
      key += K::ones() - static_cast<Word>(D + 1) * K::axis(by_rank[D - remainder]);
    }
  }

  std::vector<uint32_t>& corners_;
  Points<Word> points_;
  Simplices<Word> simplices_;
  uint32_t known_ = 0;
};

class Builder {
 public:
  Builder(Field& field, Team& team, const Passes& passes, const Settings& settings,
          const uint8_t* photo, int height, int width)
      : field_(field),
        team_(team),
        passes_(passes),
        settings_(settings),
        photo_(photo),
        height_(height),
        width_(width),
        across_((width + kTile - 1) / kTile),
        down_((height + kTile - 1) / kTile) {
    // In widths; divided as pydensecrf does it, for the same rounding.
    const int longer = std::max(height, width);
    for (int i = 0; i < longer; i++) {
      place_[kPosition].push_back(static_cast<float>(i) / settings.position_px);
      place_[kBilateral].push_back(static_cast<float>(i) / settings.bilateral_px);
    }
    for (int i = 0; i < 256; i++) level_[i] = static_cast<float>(i) / settings.bilateral_levels;
  }

  void run() {
    const double across = width_ / settings_.bilateral_px, down = height_ / settings_.bilateral_px;
    const double levels = 255 / settings_.bilateral_levels;
    const double reach = Elevation<5>().reach({across, down, levels, levels, levels});
    if (settings_.bilateral_weight == 0 || reach < Keys<5, uint64_t>::kReach)
      split<uint64_t>();
    else
      split<unsigned __int128>();
    for (Which which : {kPosition, kBilateral}) normalize(which);
    for (Part& part : field_.parts)
      for (auto& lone : part.lone) lone = {};
  }

 private:
  // Pixels to tiles, sorted by their bilateral simplex, and both lattices' points.
  template <class Word>
  void split() {
    std::vector<Finder<2, uint64_t>> near;
    std::vector<Finder<5, Word>> wide;
    for (Part& part : field_.parts) {
      near.emplace_back(part.own_corners[kPosition]);
      wide.emplace_back(part.own_corners[kBilateral]);
    }
    team_.run([&](int thread) { split(thread, near[thread], wide[thread]); });
    if (settings_.position_weight != 0) join<2, uint64_t>(kPosition, near);
    if (settings_.bilateral_weight != 0) join<5, Word>(kBilateral, wide);
  }

  template <class Word>
  void split(int thread, Finder<2, uint64_t>& near, Finder<5, Word>& wide) {
    Part& part = field_.parts[thread];
    const size_t tiles = static_cast<size_t>(across_) * down_;
    part.first_tile = Team::share(tiles, thread, team_.size());
    part.last_tile = Team::share(tiles, thread + 1, team_.size());
    part.pixels = 0;
    for (size_t t = part.first_tile; t < part.last_tile; t++) part.pixels += Box(*this, t).pixels();
    part.pixel.allocate(part.pixels);
    part.order.allocate(part.pixels);
    part.tiles.reserve(part.last_tile - part.first_tile + 1);
    // A kernel of weight 0: one simplex for all pixels, whose corners are no point.
    if (settings_.position_weight == 0) no_kernel(part, kPosition);
    if (settings_.bilateral_weight == 0) no_kernel(part, kBilateral);
    std::vector<Pixel> pixel(kTile * kTile + kBatch);  // of a tile, row by row
    std::vector<uint32_t> simplex(kTile * kTile + kBatch), count;
    size_t first = 0;
    for (size_t t = part.first_tile; t < part.last_tile; t++) {
      const Box box(*this, t);
      uint32_t known = 0, in_tile = 1;
      if (settings_.position_weight != 0) {
        place_near(box, near, simplex.data(), pixel.data());
      } else {
        for (Pixel& one : pixel) {
          std::fill_n(one.position, 3, 0.0f);
          one.simplex = 0;
        }
      }
      if (settings_.bilateral_weight != 0) {
        place_wide(box, wide, simplex.data(), pixel.data());
        known = wide.known();
        in_tile = wide.in_tile();
      } else {
        for (Pixel& one : pixel) std::fill_n(one.bilateral, 6, 0.0f);
        std::fill(simplex.begin(), simplex.end(), 0);
      }
      part.tiles.push_back({first, part.runs.size()});
      sort(part, box, pixel.data(), simplex.data(), in_tile, known, first, count);
      first += box.pixels();
    }
    part.tiles.push_back({first, part.runs.size()});
  }

  // A tile's rectangle of the photo.
  struct Box {
    Box(const Builder& of, size_t tile)
        : x0(static_cast<int>(tile % of.across_) * kTile),
          y0(static_cast<int>(tile / of.across_) * kTile),
          width(std::min(kTile, of.width_ - x0)),
          height(std::min(kTile, of.height_ - y0)) {}
    size_t pixels() const { return static_cast<size_t>(width) * height; }
    int x0, y0, width, height;
  };

  static void no_kernel(Part& part, Which which) {
    part.own_corners[which].assign(kCorners[which], 0);
    part.corners[which].assign(kCorners[which], 0);
  }

  void place_near(const Box& box, Finder<2, uint64_t>& near, uint32_t* simplex, Pixel* pixel) {
    near.begin_tile();
    const std::vector<float>& place = place_[kPosition];
    Places<2> at;
    float feature[2][kBatch];
    each_batch(box, [&](size_t first, int count, const int* x, const int* y) {
      for (int l = 0; l < kBatch; l++) {
        feature[0][l] = place[x[l]];
        feature[1][l] = place[y[l]];
      }
      passes_.place_position(near_.scale(), feature, at);
      near.find(at, count, simplex + first);
      for (int l = 0; l < count; l++) {
        pixel[first + l].simplex = near.known() + simplex[first + l];
        for (int k = 0; k < 3; k++) pixel[first + l].position[k] = at.weight[k][l];
      }
    });
  }

  template <class Word>
  void place_wide(const Box& box, Finder<5, Word>& wide, uint32_t* simplex, Pixel* pixel) {
    wide.begin_tile();
    const std::vector<float>& place = place_[kBilateral];
    Places<5> at;
    float feature[5][kBatch];
    each_batch(box, [&](size_t first, int count, const int* x, const int* y) {
      for (int l = 0; l < kBatch; l++) {
        feature[0][l] = place[x[l]];
        feature[1][l] = place[y[l]];
        const uint8_t* rgb = photo_ + 3 * (static_cast<size_t>(y[l]) * width_ + x[l]);
        for (int c = 0; c < 3; c++) feature[2 + c][l] = level_[rgb[c]];
      }
      passes_.place_bilateral(wide_.scale(), feature, at);
      wide.find(at, count, simplex + first);
      for (int l = 0; l < count; l++)
        for (int k = 0; k < 6; k++) pixel[first + l].bilateral[k] = at.weight[k][l];
    });
  }

  // A tile's pixels, row by row; the last batch repeats the last pixel.
  template <class Visit>
  static void each_batch(const Box& box, Visit visit) {
    const size_t pixels = box.pixels();
    int x[kBatch], y[kBatch];
    int column = 0, row = 0;
    for (size_t first = 0; first < pixels; first += kBatch) {
      const int count = static_cast<int>(std::min<size_t>(kBatch, pixels - first));
      for (int l = 0; l < kBatch; l++) {
        x[l] = box.x0 + column;
        y[l] = box.y0 + row;
        if (l + 1 < count || (l + 1 == count && first + count < pixels))
          if (++column == box.width) column = 0, row++;
      }
      visit(first, count, x, y);
    }
  }

  // A tile's pixels to their place in the part, by counting.
  void sort(Part& part, const Box& box, const Pixel* pixel, const uint32_t* simplex,
            uint32_t simplices, uint32_t known, size_t first, std::vector<uint32_t>& count) {
    count.assign(simplices + 1, 0);
    for (size_t i = 0; i < box.pixels(); i++) count[simplex[i] + 1]++;
    for (uint32_t s = 0; s < simplices; s++) {
      part.runs.push_back({known + s, count[s + 1]});
      count[s + 1] += count[s];
    }
    size_t i = 0;
    for (int y = box.y0; y < box.y0 + box.height; y++)
      for (int x = box.x0; x < box.x0 + box.width; x++, i++) {
        const size_t to = first + count[simplex[i]]++;
        part.order[to] = static_cast<uint32_t>(y) * width_ + x;
        part.pixel[to] = pixel[i];
      }
  }

  // Numbers the points of all threads together, and finds their neighbours.
  template <int D, class Word>
  void join(Which which, std::vector<Finder<D, Word>>& found) {
    Points<Word>& all = found[0].points();  // the first thread's points keep their numbers
    for (size_t p = 0; p < field_.parts.size(); p++) {
      Part& part = field_.parts[p];
      Points<Word>& own = found[p].points();
      part.own_points[which] = own.size();
      part.global[which].resize(own.size() + 1);
      part.global[which][0] = 0;
      for (size_t i = 1; i <= part.own_points[which]; i++)
        part.global[which][i] = p ? all.find_or_add(own.key(i)) : static_cast<uint32_t>(i);
    }
    Lattice& lattice = field_.lattices[which];
    lattice.points = all.size();
    const size_t rows = lattice.points + 1;
    lattice.neighbours.allocate((D + 1) * rows * 2);
    uint32_t* neighbours = lattice.neighbours.get();
    team_.run([&](int thread) {
      Part& part = field_.parts[thread];
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
    Lattice& lattice = field_.lattices[which];
    if (settings_.normalization == Normalization::kNone || !lattice.points) return;
    const int corners = kCorners[which];
    const size_t rows = lattice.points + 1;
    std::vector<float> sums(rows, 0.0f), other(rows, 0.0f);
    team_.run([&](int thread) {
      Part& part = field_.parts[thread];
      part.lone[which].assign(part.own_points[which] + 1, 0.0f);
      each_pixel(part, which, [&](size_t, float* weight, size_t simplex) {
        for (int k = 0; k < corners; k++)
          part.lone[which][part.own_corners[which][corners * simplex + k]] += weight[k];
      });
    });
    for (Part& part : field_.parts)
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
    const Normalization form = settings_.normalization;
    team_.run([&](int thread) {
      Part& part = field_.parts[thread];
      if (form != Normalization::kSymmetric) part.ratio[which].allocate(part.pixels);
      each_pixel(part, which, [&](size_t i, float* weight, size_t simplex) {
        float total = 0;
        for (int k = 0; k < corners; k++)
          total += weight[k] * sums[part.corners[which][corners * simplex + k]];
        total = total * kAlpha[which] + 1e-20f;
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

  Field& field_;
  Team& team_;
  const Passes& passes_;
  const Settings& settings_;
  const uint8_t* photo_;
  int height_, width_, across_, down_;
  std::vector<float> place_[2];
  float level_[256];
  const Elevation<2> near_;
  const Elevation<5> wide_;
};

}  // namespace

void build(Field& field, Team& team, const Passes& passes, const Settings& settings,
           const uint8_t* photo, int height, int width) {
  Builder(field, team, passes, settings, photo, height, width).run();
}

}  // namespace segment_crf
