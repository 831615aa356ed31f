// Memory that is not written before it is used; std::vector would fill it twice.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace segment_crf {

// A photo's arrays are megabytes, and a fresh page of 4 kB costs as much as the work on it: large
// arrays ask for pages of 2 MB. Not under AddressSanitizer, which would not see a write behind one.
constexpr size_t kHugePage = size_t{1} << 21;
#if defined(__SANITIZE_ADDRESS__)
#define SEGMENT_CRF_WATCHED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SEGMENT_CRF_WATCHED
#endif
#endif
#if defined(__linux__) && !defined(SEGMENT_CRF_WATCHED)
constexpr bool kHugePages = true;
#else
constexpr bool kHugePages = false;
#endif

// A row of 16 floats that crosses lines of the cache is read and written twice.
constexpr size_t kLine = 64;

inline void* allocate_bytes(size_t bytes) {
#if defined(SEGMENT_CRF_WATCHED)
  return std::malloc(bytes);
#endif
  const size_t unit = kHugePages && bytes >= kHugePage ? kHugePage : kLine;
  const size_t rounded = (bytes / unit + 1) * unit;
  void* memory = rounded < bytes ? nullptr : std::aligned_alloc(unit, rounded);
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (unit == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);  // no harm where it is declined
#endif
  return memory;
}

template <class T>
class Raw {
 public:
  Raw() = default;
  Raw(Raw&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Raw& operator=(Raw&& other) noexcept {
    T* mine = data_;
    data_ = other.data_;
    other.data_ = mine;
    return *this;
  }
  ~Raw() { std::free(data_); }

  void allocate(size_t count) {
    if (count > static_cast<size_t>(-1) / sizeof(T)) throw std::bad_alloc();
    std::free(data_);
    data_ = nullptr;
    data_ = static_cast<T*>(allocate_bytes(count * sizeof(T)));
  }
  T* get() { return data_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
};

}  // namespace segment_crf
