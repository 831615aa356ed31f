// The permutohedral lattice of a photo's pixels.
//
// Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
// Eurographics 2010. Positions and rounding follow Krähenbühl and Koltun's code (NIPS 2011), so that
// every pixel lies in the same simplex with the same weights as in pydensecrf.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace segment_crf {

constexpr int kBatch = 16;  // pixels that are placed together

// Where pixels lie in a lattice of D dimensions.
template <int D>
struct Places {
  float base[D + 1][kBatch];    // the simplex's corner of remainder 0
  float rank[D + 1][kBatch];    // order of the coordinates within the simplex
  float weight[D + 1][kBatch];  // barycentric, of the corners by their remainder
};

template <int D>
class Elevation {
 public:
  Elevation() {
    const float inverse_deviation = static_cast<float>(std::sqrt(2.0 / 3.0) * (D + 1));
    for (int i = 0; i < D; i++)
      scale_[i] = static_cast<float>(1.0 / std::sqrt((i + 2.0) * (i + 1.0)) * inverse_deviation);
  }

  // A bound on coordinates, for features from 0 to `most`.
  double reach(const double (&most)[D]) const {
    double reach = 2 * (D + 1);
    for (int i = 0; i < D; i++) reach += (i + 1) * most[i] * scale_[i];
    return reach;
  }

  void place(const float (&feature)[D][kBatch], Places<D>& at) const {
    float elevated[D + 1][kBatch], sum[kBatch];
    for (int l = 0; l < kBatch; l++) sum[l] = 0;
    for (int j = D; j > 0; j--)
      for (int l = 0; l < kBatch; l++) {
        const float scaled = feature[j - 1][l] * scale_[j - 1];
        elevated[j][l] = sum[l] - static_cast<float>(j) * scaled;
        sum[l] += scaled;
      }
    for (int l = 0; l < kBatch; l++) elevated[0][l] = sum[l];

    float off[kBatch];  // how many steps the rounded point is off the plane of coordinate sum 0
    for (int l = 0; l < kBatch; l++) off[l] = 0;
    const float down = 1.0f / (D + 1), up = D + 1;
    for (int i = 0; i <= D; i++)
      for (int l = 0; l < kBatch; l++) {
        // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even.
        const float step = (down * elevated[i][l] + 12582912.0f) - 12582912.0f;
        at.base[i][l] = step * up;
        off[l] += step;
        at.rank[i][l] = 0;
      }
    for (int i = 0; i < D; i++)
      for (int j = i + 1; j <= D; j++)
        for (int l = 0; l < kBatch; l++) {
          const bool less = elevated[i][l] - at.base[i][l] < elevated[j][l] - at.base[j][l];
          at.rank[i][l] += less ? 1.0f : 0.0f;
          at.rank[j][l] += less ? 0.0f : 1.0f;
        }
    float rest[D + 1][kBatch];
    for (int i = 0; i <= D; i++)
      for (int l = 0; l < kBatch; l++) {
        float rank = at.rank[i][l] + off[l];
        const float back = rank < 0 ? up : (rank >= up ? -up : 0.0f);
        at.rank[i][l] = rank + back;
        at.base[i][l] += back;
        rest[i][l] = (elevated[i][l] - at.base[i][l]) * down;
      }
    float sorted[D + 1][kBatch];  // from the highest rank to the lowest
    for (int k = 0; k <= D; k++)
      for (int l = 0; l < kBatch; l++) {
        float value = 0;
        for (int i = 0; i <= D; i++) value += at.rank[i][l] == D - k ? rest[i][l] : 0.0f;
        sorted[k][l] = value;
      }
    for (int l = 0; l < kBatch; l++) at.weight[0][l] = sorted[0][l] + (1.0f - sorted[D][l]);
    for (int k = 1; k <= D; k++)
      for (int l = 0; l < kBatch; l++) at.weight[k][l] = sorted[k][l] - sorted[k - 1][l];
  }

 private:
  float scale_[D];
};

// Lattice points in one integer: their first D coordinates, the last follows. Adding keys adds
// coordinates, as long as none leaves its field.
template <int D, class Word>
struct Keys {
  using Key = Word;
  static constexpr int kBits = sizeof(Word) * 8 / D > 32 ? 32 : sizeof(Word) * 8 / D;
  static constexpr double kReach = static_cast<double>((1ull << (kBits - 1)) - 1);

  static Word axis(int i) { return i < D ? static_cast<Word>(1) << (kBits * i) : 0; }
  static Word ones() {
    Word key = 0;
    for (int i = 0; i < D; i++) key += axis(i);
    return key;
  }
  static Word from(const float (&base)[D + 1][kBatch], int lane) {
    Word key = ones() << (kBits - 1);  // so that fields are positive
    for (int i = 0; i < D; i++)
      key += static_cast<Word>(static_cast<int64_t>(base[i][lane])) << (kBits * i);
    return key;
  }
  // From a point to its neighbour along one of the D + 1 directions of the blur.
  static Word step(int direction) {
    return static_cast<Word>(D + 1) * axis(direction) - ones();
  }
};

inline uint64_t mixed(uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  return x ^ x >> 32;
}
inline uint64_t hashed(uint64_t key) { return mixed(key); }
inline uint64_t hashed(unsigned __int128 key) {
  return mixed(static_cast<uint64_t>(key) ^ mixed(static_cast<uint64_t>(key >> 64)));
}

// Lattice points by their keys, numbered from 1 in the order in which they were met; 0 is none.
template <class Key>
class Points {
 public:
  Points() { grow(1 << 12); }

  uint32_t find(Key key) const {
    for (size_t slot = hashed(key) & mask_;; slot = (slot + 1) & mask_)
      if (!slots_[slot].number || slots_[slot].key == key) return slots_[slot].number;
  }

  uint32_t find_or_add(Key key) {
    size_t slot = hashed(key) & mask_;
    for (; slots_[slot].number; slot = (slot + 1) & mask_)
      if (slots_[slot].key == key) return slots_[slot].number;
    list_.push_back(key);
    const uint32_t number = static_cast<uint32_t>(list_.size());
    slots_[slot] = {key, number};
    if (2 * list_.size() > mask_) grow(2 * (mask_ + 1));
    return number;
  }

  size_t size() const { return list_.size(); }
  Key key(size_t number) const { return list_[number - 1]; }

 private:
  struct Slot {
    Key key;
    uint32_t number;
  };

  void grow(size_t slots) {
    slots_.assign(slots, Slot{});
    mask_ = slots - 1;
    for (size_t i = 0; i < list_.size(); i++) {
      size_t slot = hashed(list_[i]) & mask_;
      while (slots_[slot].number) slot = (slot + 1) & mask_;
      slots_[slot] = {list_[i], static_cast<uint32_t>(i) + 1};
    }
  }

  std::vector<Slot> slots_;
  std::vector<Key> list_;
  size_t mask_ = 0;
};

// The simplices of a few pixels, forgotten by begin() at once.
template <class Key, int kMost>
class Simplices {
 public:
  Simplices() : slots_(2 * kMost) {}

  void begin() {
    stamp_++;
    size_ = 0;
  }

  // The number of a simplex from 0, and whether it is new.
  std::pair<uint32_t, bool> find_or_add(Key base, uint32_t order) {
    size_t slot = (hashed(base) ^ hashed(static_cast<uint64_t>(order))) % (2 * kMost);
    for (; slots_[slot].stamp == stamp_; slot = (slot + 1) % (2 * kMost))
      if (slots_[slot].base == base && slots_[slot].order == order)
        return {slots_[slot].number, false};
    slots_[slot] = {base, order, stamp_, size_};
    return {size_++, true};
  }

  uint32_t size() const { return size_; }

 private:
  struct Slot {
    Key base;
    uint32_t order, stamp, number;
  };

  std::vector<Slot> slots_;
  uint32_t stamp_ = 0, size_ = 0;
};

}  // namespace segment_crf
