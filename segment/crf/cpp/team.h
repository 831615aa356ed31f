// Threads that do one thing together, then the next.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace segment_crf {

// The caller is thread 0. What a task throws is thrown again by run(), once all have ended.
class Team {
 public:
  explicit Team(int threads) : size_(threads) {
    try {
      for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {  // a machine at its limit of threads: go on with those there are
      size_ = static_cast<int>(workers_.size()) + 1;
    }
  }
  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
      round_++;
    }
    begin_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  void run(const std::function<void(int)>& task) {
    if (size_ > 1) {
      left_.store(size_ - 1, std::memory_order_relaxed);
      {
        std::lock_guard<std::mutex> lock(mutex_);
        task_ = &task;
        round_.fetch_add(1, std::memory_order_release);
      }
      begin_.notify_all();
    }
    attempt(task, 0);
    if (size_ > 1) {
      for (int spin = 0; left_.load(std::memory_order_acquire) && spin < kSpins; spin++) pause();
      if (left_.load(std::memory_order_acquire)) {
        std::unique_lock<std::mutex> lock(mutex_);
        end_.wait(lock, [this] { return left_.load(std::memory_order_acquire) == 0; });
      }
    }
    if (failure_) {
      std::exception_ptr failure;
      std::swap(failure, failure_);
      std::rethrow_exception(failure);
    }
  }

  // This thread's share of `count` things: the first, and one behind the last.
  static size_t share(size_t count, int thread, int threads) {
    return count * static_cast<size_t>(thread) / static_cast<size_t>(threads);
  }

 private:
  static constexpr int kSpins = 4000;  // some ten microseconds: longer waits sleep

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void attempt(const std::function<void(int)>& task, int thread) {
    try {
      task(thread);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void work(int thread) {
    unsigned seen = 0;
    while (true) {
      for (int spin = 0; round_.load(std::memory_order_acquire) == seen && spin < kSpins; spin++)
        pause();
      if (round_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        begin_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
      }
      seen = round_.load(std::memory_order_acquire);
      if (over_) return;
      attempt(*task_, thread);
      if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        end_.notify_one();
      }
    }
  }

  int size_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable begin_, end_;
  std::atomic<unsigned> round_{0};
  std::atomic<int> left_{0};
  std::atomic<bool> over_{false};
  const std::function<void(int)>* task_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace segment_crf
