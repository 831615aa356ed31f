// The permutohedral lattice of a photo's pixels.
//
// Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
// Eurographics 2010. Positions and rounding follow Krähenbühl and Koltun's code (NIPS 2011), so that
// every pixel lies in the same simplex with the same weights as in pydensecrf.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "field.h"

namespace segment_crf {

// Features, in widths, to the lattice's coordinates.
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

  // By feature; place.inc has the formula.
  const float* scale() const { return scale_; }

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
  static void from(const int32_t (&base)[D + 1][kBatch], Word (&key)[kBatch]) {
    for (int l = 0; l < kBatch; l++) key[l] = ones() << (kBits - 1);  // so that fields are positive
    for (int i = 0; i < D; i++)
      for (int l = 0; l < kBatch; l++)
        key[l] += static_cast<Word>(static_cast<int64_t>(base[i][l])) << (kBits * i);
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
template <class Key>
class Simplices {
 public:
  explicit Simplices(size_t most) : slots_(2 * most), mask_(2 * most - 1) {}  // a power of 2

  void begin() {
    stamp_++;
    size_ = 0;
  }

  // The number of a simplex from 0, and whether it is new.
  std::pair<uint32_t, bool> find_or_add(Key base, uint32_t order) {
    size_t slot = (hashed(base) ^ hashed(static_cast<uint64_t>(order))) & mask_;
    for (; slots_[slot].stamp == stamp_; slot = (slot + 1) & mask_)
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
  size_t mask_;
  uint32_t stamp_ = 0, size_ = 0;
};

}  // namespace segment_crf
