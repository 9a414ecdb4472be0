// A one-layer model's logits, and the gradient of its training loss by its tables, in one pass over the pairs.
//
// What grokjax/native/kernels.py asks for is computed block by block: a block's activations are sums of table rows,
// its logits a product, its loss's gradient follows at once, and two products and sums of rows take that back to the
// tables. A block never leaves the core's second-level cache, so that in training nothing of the size pairs × neurons
// is ever written to memory. Every sum has an order that depends on the arguments alone.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// --- vectors ---------------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
constexpr int LANES = 16, TALL = 12;
#elif defined(__AVX__)
constexpr int LANES = 8, TALL = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, TALL = 8;
#else
constexpr int LANES = 4, TALL = 4;
#endif
constexpr int WIDE = 2 * LANES;  // A tile of TALL × WIDE sums fills the registers.

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
inline void store(float* to, Vec x) { *reinterpret_cast<Vec*>(to) = x; }
inline void add(float* to, Vec x) { store(to, load(to) + x); }
inline Vec all(float x) { return x - Vec{}; }

inline float sum(Vec x) {
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += x[i];
  return total;
}

inline float largest(Vec x) {
  float top = x[0];
  for (int i = 1; i < LANES; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// exp(x) for x <= 0, within 2 units in the last place; 0 below -87, where float32 would be denormal. Polynomial and the
// two parts of log 2 as in Cephes's expf (Moshier 1992).
inline Vec exp_of_negative(Vec x) {
  const Vec shift = all(12582912.0f);  // 1.5 * 2^23, which leaves no room for a fraction
  const Vec power = (x * 1.44269504f + shift) - shift;
  const Vec r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
  Vec y = all(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) y = y * r + c;
  y = y * (r * r) + r + 1.0f;
  const Ints scale = (__builtin_convertvector(power < -126.0f ? all(-126.0f) : power, Ints) + 127) << 23;
  Vec factor;
  std::memcpy(&factor, &scale, sizeof factor);
  return x < -87.0f ? Vec{} : y * factor;
}

// --- what is given and asked for --------------------------------------------------------------------------------------

constexpr int64_t BLOCK = 96;   // pairs; a multiple of twice TALL
constexpr int64_t DEPTH = 256;  // of a product, whose right factor then stays in the first-level cache

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Size letters as in grokjax/model.py: P residues, H heads, M neurons; Y columns of the rows, which are the neurons,
// filled up to a multiple of 32, and then the logits.
struct Sizes {
  int64_t n_pairs, P, H, M, Y;
  int64_t neurons() const { return rounded_up(M, 32); }
  int64_t table() const { return P * H * Y; }
};

struct Pairs {
  const int32_t *a, *b, *label;
};

// The tables, or the gradient by them.
template <typename T>
struct Tables {
  T *score_a_PxH, *score_b_PxH, *score_last_H, *row_a_HxPxY, *row_b_HxPxY, *bias_Y, *out_PxM;
};

// Sums of gradients over some of the pairs.
struct Sums {
  explicit Sums(const Sizes& s)
      : sizes{s.P * s.H, s.P * s.H, s.H, s.table(), s.table(), s.Y, (s.P + TALL) * s.neurons()},
        memory(new float[std::max<int64_t>(1, total())]()) {
    float* at = memory.get();
    float** fields[] = {&to.score_a_PxH, &to.score_b_PxH, &to.score_last_H, &to.row_a_HxPxY,
                        &to.row_b_HxPxY, &to.bias_Y,      &to.out_PxM};
    for (int i = 0; i < 7; ++i) *fields[i] = at, at += sizes[i];
  }
  int64_t total() const {
    int64_t n = 0;
    for (int64_t size : sizes) n += size;
    return n;
  }
  int64_t sizes[7];
  std::unique_ptr<float[]> memory;
  Tables<float> to;
};

// --- products --------------------------------------------------------------------------------------------------------

// end(i, j, sums) for every i < ROWS, j < COLS: Σ_k left[i, k] · right[k, j-th vector].
template <int ROWS, int COLS, typename End>
inline void tile(int64_t depth, const float* left, int64_t left_row, int64_t left_k, const float* right,
                 int64_t right_k, End end) {
  Vec sums[ROWS][COLS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec some[COLS];
    for (int j = 0; j < COLS; ++j) some[j] = load(right + k * right_k + j * LANES);
    for (int i = 0; i < ROWS; ++i) {
      const Vec one = all(left[i * left_row + k * left_k]);
      for (int j = 0; j < COLS; ++j) sums[i][j] += one * some[j];
    }
  }
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < COLS; ++j) end(i, j, sums[i][j]);
}

// W_L twice, in panels of WIDE columns one after another, as products read it: by logits, and by neurons.
struct Panels {
  Panels(const Sizes& s, const float* out_PxM)
      : by_logit(s.M * rounded_up(s.P, WIDE)), by_neuron(s.P * s.neurons()) {
    for (int64_t p = 0; p < s.P; ++p)
      for (int64_t m = 0; m < s.M; ++m) {
        const float x = out_PxM[p * s.M + m];
        by_logit[(p / WIDE * s.M + m) * WIDE + p % WIDE] = x;
        by_neuron[(m / WIDE * s.P + p) * WIDE + m % WIDE] = x;
      }
  }
  std::vector<float> by_logit, by_neuron;
};

// --- one block -------------------------------------------------------------------------------------------------------

// Up to BLOCK pairs on their way from the tables to the loss and back.
class Block {
 public:
  Block(const Sizes& s, const Tables<const float>& from, const Panels& panels)
      : s(s), from(from), panels(panels), stride(s.Y + 16), x(BLOCK * stride), weight_a(BLOCK * s.H),
        weight_b(BLOCK * s.H), weight_last(BLOCK * s.H), rows(2 * s.H), weights(2 * s.H), ct_weights(2 * s.H) {}

  // Computes the activations and logits of n pairs.
  void forward(const Pairs& pairs, int64_t n) {
    attend(pairs, n);
    for (int64_t i = 0; i < n; ++i) look_up(pairs, i), add_rows(i);
    std::fill(x.begin() + n * stride, x.end(), 0.0f);
    add_neurons_to_logits();
  }

  // After `forward` of the same pairs, adds the gradient of their summed loss.
  void backward(const Pairs& pairs, int64_t n, const Tables<float>& sums) {
    for (int64_t i = 0; i < n; ++i) loss_backward(pairs.label[i], logits(i));
    out_backward(sums.out_PxM);
    neurons_backward();
    bias_backward(n, sums.bias_Y);
    for (int64_t i = 0; i < n; ++i) look_up(pairs, i), rows_backward(pairs, i, sums);
  }

  float* neurons(int64_t i) { return x.data() + i * stride; }
  float* logits(int64_t i) { return neurons(i) + s.neurons(); }

 private:
  // The softmax over the scores of the first token, the second and "=".
  void attend(const Pairs& pairs, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < s.H; ++h) {
        const float a = from.score_a_PxH[pairs.a[i] * s.H + h], b = from.score_b_PxH[pairs.b[i] * s.H + h];
        const float last = from.score_last_H[h], top = std::max(std::max(a, b), last);
        const int64_t at = i * s.H + h;
        weight_a[at] = a - top, weight_b[at] = b - top, weight_last[at] = last - top;
      }
    for (int64_t at = 0; at < BLOCK * s.H; at += LANES) {
      const Vec a = exp_of_negative(load(&weight_a[at])), b = exp_of_negative(load(&weight_b[at]));
      const Vec last = exp_of_negative(load(&weight_last[at])), total = a + b + last;
      store(&weight_a[at], a / total), store(&weight_b[at], b / total), store(&weight_last[at], last / total);
    }
  }

  // Where a pair's rows and weights are, the first token's heads and then the second's.
  void look_up(const Pairs& pairs, int64_t i) {
    for (int64_t h = 0; h < s.H; ++h) {
      rows[h] = from.row_a_HxPxY + (h * s.P + pairs.a[i]) * s.Y;
      rows[s.H + h] = from.row_b_HxPxY + (h * s.P + pairs.b[i]) * s.Y;
      weights[h] = weight_a[i * s.H + h], weights[s.H + h] = weight_b[i * s.H + h];
    }
  }

  template <int VECTORS>
  void add_rows(int64_t y, float* to) {
    Vec total[VECTORS];
    for (int j = 0; j < VECTORS; ++j) total[j] = load(from.bias_Y + y + j * LANES);
    for (int64_t r = 0; r < 2 * s.H; ++r)
      for (int j = 0; j < VECTORS; ++j) total[j] += weights[r] * load(rows[r] + y + j * LANES);
    // Not the larger of 0 and x, so that NaN stays NaN.
    if (y < s.neurons())
      for (int j = 0; j < VECTORS; ++j) total[j] = total[j] < 0 ? Vec{} : total[j];
    for (int j = 0; j < VECTORS; ++j) store(to + y + j * LANES, total[j]);
  }

  // Activations after ReLU, and what reaches the logits past the neurons.
  void add_rows(int64_t i) {
    constexpr int VECTORS = 32 / LANES;  // the neurons are a multiple of 32, so that no step has both
    int64_t y = 0;
    for (; y + 32 <= s.Y; y += 32) add_rows<VECTORS>(y, neurons(i));
    for (; y < s.Y; y += LANES) add_rows<1>(y, neurons(i));
  }

  void add_neurons_to_logits() {
    for (int64_t m = 0; m < s.M; m += DEPTH)
      for (int64_t p = 0; p < s.P; p += WIDE) {
        const float* right = panels.by_logit.data() + p * s.M + m * WIDE;
        const int64_t depth = std::min(DEPTH, s.M - m);
        const auto into = [&](int64_t i) {
          return [this, i, p](int row, int j, Vec v) { add(logits(i + row) + p + j * LANES, v); };
        };
        if (s.P - p > LANES)
          for (int64_t i = 0; i < BLOCK; i += TALL)
            tile<TALL, 2>(depth, neurons(i) + m, stride, 1, right, WIDE, into(i));
        else
          for (int64_t i = 0; i < BLOCK; i += 2 * TALL)
            tile<2 * TALL, 1>(depth, neurons(i) + m, stride, 1, right, WIDE, into(i));
      }
  }

  // From logits to the gradient by them, as in grokjax/losses.py: no difference of nearly equal numbers anywhere.
  void loss_backward(int32_t label, float* z) {
    const int64_t end = rounded_up(s.P, LANES);
    const float right = z[label];
    z[label] = -INFINITY;
    for (int64_t p = s.P; p < end; ++p) z[p] = -INFINITY;
    Vec tops = load(z);
    for (int64_t p = LANES; p < end; p += LANES) tops = load(z + p) > tops ? load(z + p) : tops;
    const float top = largest(tops);
    Vec totals{};
    for (int64_t p = 0; p < end; p += LANES) {
      const Vec e = exp_of_negative(load(z + p) - top);
      totals += e;
      store(z + p, e);
    }
    const double others = sum(totals), margin = std::log(others) + (double(top) - double(right));
    const double wrong = 1 / (1 + std::exp(-margin));
    for (int64_t p = 0; p < end; p += LANES) store(z + p, load(z + p) * float(wrong / others));
    z[label] = float(-wrong);
  }

  void out_backward(float* sum_PxM) {
    for (int64_t m = 0; m < s.neurons(); m += WIDE)
      for (int64_t p = 0; p < s.P; p += TALL)
        tile<TALL, 2>(BLOCK, logits(0) + p, 1, stride, neurons(0) + m, stride, [&](int row, int j, Vec v) {
          add(sum_PxM + (p + row) * s.neurons() + m + j * LANES, v);
        });
  }

  // In place of the activations, the gradient by what ReLU was given.
  void neurons_backward() {
    for (int64_t m = 0; m < s.neurons(); m += WIDE)
      for (int64_t i = 0; i < BLOCK; i += TALL)
        tile<TALL, 2>(s.P, logits(i), stride, 1, panels.by_neuron.data() + m * s.P, WIDE, [&](int row, int j, Vec v) {
          float* at = neurons(i + row) + m + j * LANES;
          store(at, load(at) > 0 ? v : Vec{});
        });
  }

  void bias_backward(int64_t n, float* sum_Y) {
    for (int64_t y = 0; y < s.Y; y += LANES) {
      Vec total{};
      for (int64_t i = 0; i < n; ++i) total += load(neurons(i) + y);
      add(sum_Y + y, total);
    }
  }

  // Where the sums for a row of the pair that was looked up are.
  float* of_sums(int64_t r, const Tables<float>& sums) {
    return r < s.H ? sums.row_a_HxPxY + (rows[r] - from.row_a_HxPxY) : sums.row_b_HxPxY + (rows[r] - from.row_b_HxPxY);
  }

  template <int ROWS>
  void rows_backward(const float* ct, int64_t first, const Tables<float>& sums) {
    // In variables of their own, which the compiler knows that no store changes.
    const float* row[ROWS];
    float* ct_row[ROWS];
    Vec weight[ROWS], totals[ROWS] = {};
    for (int r = 0; r < ROWS; ++r)
      row[r] = rows[first + r], ct_row[r] = of_sums(first + r, sums), weight[r] = all(weights[first + r]);
    for (int64_t y = 0, end = s.Y; y < end; y += LANES) {
      const Vec some = load(ct + y);
      for (int r = 0; r < ROWS; ++r) {
        totals[r] += some * load(row[r] + y);
        add(ct_row[r] + y, weight[r] * some);
      }
    }
    for (int r = 0; r < ROWS; ++r) ct_weights[first + r] = sum(totals[r]);
  }

  void rows_backward(const Pairs& pairs, int64_t i, const Tables<float>& sums) {
    int64_t r = 0;
    for (; r + 4 <= 2 * s.H; r += 4) rows_backward<4>(neurons(i), r, sums);
    for (; r < 2 * s.H; r += 2) rows_backward<2>(neurons(i), r, sums);
    for (int64_t h = 0; h < s.H; ++h) {
      const float a = weights[h] * ct_weights[h], b = weights[s.H + h] * ct_weights[s.H + h], both = a + b;
      sums.score_a_PxH[pairs.a[i] * s.H + h] += a - weights[h] * both;
      sums.score_b_PxH[pairs.b[i] * s.H + h] += b - weights[s.H + h] * both;
      sums.score_last_H[h] -= weight_last[i * s.H + h] * both;
    }
  }

  const Sizes& s;
  const Tables<const float>& from;
  const Panels& panels;
  const int64_t stride;  // no power of two, which caches would have no room for
  std::vector<float> x;  // [BLOCK, stride]: neurons and logits, then the gradients by them
  std::vector<float> weight_a, weight_b, weight_last;  // [BLOCK, H]
  std::vector<const float*> rows;                      // of one pair, as are these
  std::vector<float> weights, ct_weights;
};

// --- one run ---------------------------------------------------------------------------------------------------------

// Calls work(i) for each i < n, on the pool's threads and on this one, and waits for all. Never waits for a task that
// has not begun, since all of the pool's threads may be waiting here.
template <typename Work>
void in_parallel(int64_t n, ffi::ThreadPool& pool, const Work& work) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable changed;
  };
  auto shared = std::make_shared<Shared>();
  const std::function<void()> take = [shared, n, &work] {
    for (int64_t i; (i = shared->next++) < n;) {  // `work` is gone once all have been taken, and not touched then
      work(i);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == n) shared->changed.notify_all();
    }
  };
  for (int64_t i = 1; i < n; ++i) pool.Schedule(std::function<void()>(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->changed.wait(lock, [&] { return shared->done == n; });
}

// Calls work(block, pairs, where they begin, how many) for all pairs, in blocks and in parts of several blocks.
template <typename Work>
void by_blocks(const Sizes& s, const Pairs& pairs, const Tables<const float>& from, int64_t n_parts,
               ffi::ThreadPool& pool, const Work& work) {
  const Panels panels(s, from.out_PxM);
  const int64_t n_blocks = (s.n_pairs + BLOCK - 1) / BLOCK;
  const auto all_of = [&](int64_t part) {
    Block block(s, from, panels);
    for (int64_t i = n_blocks * part / n_parts; i < n_blocks * (part + 1) / n_parts; ++i) {
      const int64_t first = i * BLOCK;
      work(part, block, Pairs{pairs.a + first, pairs.b + first, pairs.label + first}, first,
           std::min(BLOCK, s.n_pairs - first));
    }
  };
  n_parts == 1 ? all_of(0) : in_parallel(n_parts, pool, all_of);
}

void gradient(const Sizes& s, const Pairs& pairs, const Tables<const float>& from, const Tables<float>& to,
              int64_t n_parts, ffi::ThreadPool& pool) {
  std::vector<std::unique_ptr<Sums>> parts(n_parts);
  for (auto& part : parts) part = std::make_unique<Sums>(s);
  by_blocks(s, pairs, from, n_parts, pool, [&](int64_t part, Block& block, const Pairs& some, int64_t, int64_t n) {
    block.forward(some, n);
    block.backward(some, n, parts[part]->to);
  });
  Sums& total = *parts[0];
  for (int64_t part = 1; part < n_parts; ++part)
    for (int64_t i = 0; i < total.total(); ++i) total.memory[i] += parts[part]->memory[i];
  float* const targets[] = {to.score_a_PxH, to.score_b_PxH, to.score_last_H, to.row_a_HxPxY, to.row_b_HxPxY, to.bias_Y};
  const float* found = total.memory.get();
  for (int i = 0; i < 6; ++i) std::memcpy(targets[i], found, 4 * total.sizes[i]), found += total.sizes[i];
  for (int64_t p = 0; p < s.P; ++p) std::memcpy(to.out_PxM + p * s.M, found + p * s.neurons(), 4 * s.M);
}

void forward(const Sizes& s, const Pairs& pairs, const Tables<const float>& from, float* logits_NxP, float* acts_NxM,
             ffi::ThreadPool& pool) {
  const int64_t n_parts = std::max<int64_t>(1, pool.num_threads());  // nothing is added up, so bits do not depend on it
  by_blocks(s, pairs, from, n_parts, pool, [&](int64_t, Block& block, const Pairs& some, int64_t first, int64_t n) {
    block.forward(some, n);
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(logits_NxP + (first + i) * s.P, block.logits(i), 4 * s.P);
      std::memcpy(acts_NxM + (first + i) * s.M, block.neurons(i), 4 * s.M);
    }
  });
}

// --- XLA's side ------------------------------------------------------------------------------------------------------

using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;
using Result = ffi::Result<Floats>;

// What both functions are given; leading axes are runs, one after another.
struct Arguments {
  Integers a, b, label;
  Floats score_a, score_b, score_last, row_a, row_b, bias, out;
  Sizes sizes() const {
    const auto row = row_a.dimensions(), w = out.dimensions();
    const size_t r = row.size();
    return {static_cast<int64_t>(a.dimensions().back()), row[r - 2], row[r - 3], static_cast<int64_t>(w.back()),
            row[r - 1]};
  }
  int64_t n_runs() const { return a.element_count() ? a.element_count() / a.dimensions().back() : 0; }
  Pairs pairs(int64_t run) const {
    const int64_t at = run * a.dimensions().back();
    return {a.typed_data() + at, b.typed_data() + at, label.typed_data() + at};
  }
  Tables<const float> tables(int64_t run) const {
    const auto of = [&](const Floats& x) { return x.typed_data() + run * (x.element_count() / n_runs()); };
    return {of(score_a), of(score_b), of(score_last), of(row_a), of(row_b), of(bias), of(out)};
  }
};

ffi::Error refused(const Sizes& s, int64_t n_parts) {
  if (s.Y == s.neurons() + rounded_up(s.P, 16) && n_parts > 0) return ffi::Error::Success();
  return ffi::Error::InvalidArgument("rows must be the neurons up to a multiple of 32, then the logits up to one of 16");
}

ffi::Error gradients(ffi::ThreadPool pool, Integers a, Integers b, Integers label, Floats score_a, Floats score_b,
                     Floats score_last, Floats row_a, Floats row_b, Floats bias, Floats out, Result ct_score_a,
                     Result ct_score_b, Result ct_score_last, Result ct_row_a, Result ct_row_b, Result ct_bias,
                     Result ct_out, int64_t n_parts) {
  const Arguments given{a, b, label, score_a, score_b, score_last, row_a, row_b, bias, out};
  const Sizes s = given.sizes();
  if (ffi::Error error = refused(s, n_parts); error.failure()) return error;
  for (int64_t run = 0; run < given.n_runs(); ++run) {
    const auto of = [&](Result& x) { return x->typed_data() + run * (x->element_count() / given.n_runs()); };
    gradient(s, given.pairs(run), given.tables(run),
             {of(ct_score_a), of(ct_score_b), of(ct_score_last), of(ct_row_a), of(ct_row_b), of(ct_bias), of(ct_out)},
             n_parts, pool);
  }
  return ffi::Error::Success();
}

ffi::Error forwards(ffi::ThreadPool pool, Integers a, Integers b, Integers label, Floats score_a, Floats score_b,
                    Floats score_last, Floats row_a, Floats row_b, Floats bias, Floats out, Result logits,
                    Result acts) {
  const Arguments given{a, b, label, score_a, score_b, score_last, row_a, row_b, bias, out};
  const Sizes s = given.sizes();
  if (ffi::Error error = refused(s, 1); error.failure()) return error;
  for (int64_t run = 0; run < given.n_runs(); ++run)
    forward(s, given.pairs(run), given.tables(run), logits->typed_data() + run * s.n_pairs * s.P,
            acts->typed_data() + run * s.n_pairs * s.M, pool);
  return ffi::Error::Success();
}

auto arguments() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Integers>()
      .Arg<Integers>()
      .Arg<Integers>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(grokjax_forward, forwards, arguments().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(grokjax_gradient, gradients,
                              arguments()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<int64_t>("n_parts"));
