// Recurrence, softmax and pooling where torch would read and write memory once for every operation. Built by native.py.
//
// Plain pointers in row-major order, called through ctypes. An element of the result is computed by one thread, in one
// order: the bits do not depend on the number of threads. Elements are float or bf16, everything between is float.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <omp.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#define TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef __AVX512F__
constexpr int W = 16, ROWS = 6;  // floats in a vector; rows multiplied at a time, so many that sums fill the registers
#else
constexpr int W = 8, ROWS = 3;
#endif

typedef float V __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
typedef uint16_t Half __attribute__((vector_size(2 * W)));
struct bf16 { uint16_t bits; };
struct Row { V of[4]; };  // of a product with four vectors of columns

// --- vectors ---

inline V widen(V x) { return x; }
inline V widen(Half x) { return (V)(__builtin_convertvector(x, U) << 16); }

inline void narrow(V x, V* out) { *out = x; }
inline void narrow(V x, Half* out) {  // to the nearest, ties to even
#ifdef __AVX512BF16__
    *out = (Half)_mm512_cvtneps_pbh((__m512)x);
#else
    U u = (U)x;
    *out = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, Half);
#endif
}

template <class T> struct Lanes;
template <> struct Lanes<float> { typedef V type; };
template <> struct Lanes<bf16> { typedef Half type; };

template <class T> inline V load(const T* from, long n = W) {  // the first n lanes, zeros after them
    typename Lanes<T>::type x = {};
    if (n >= W) memcpy(&x, from, sizeof x);
    else memcpy(&x, from, n * sizeof(T));
    return widen(x);
}

template <class T> inline void store(T* to, V value, long n = W) {
    typename Lanes<T>::type x;
    narrow(value, &x);
    if (n >= W) memcpy(to, &x, sizeof x);
    else memcpy(to, &x, n * sizeof(T));
}

inline V exponential(V x) {  // relative error 2e-7; not a number stays that
    x = x < -87.3f ? V{} - 87.3f : x;
    x = x > 88.0f ? V{} + 88.0f : x;
    V shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = r * (1 / 720.0f) + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (V)((U)p + ((U)shifted << 23));
}

inline V sigmoid(V x) { return 1.0f / (1.0f + exponential(-x)); }

inline V tangent(V x) {  // hyperbolic; a series where 1 - 2/(e^2x + 1) would lose digits
    U sign = (U)x & 0x80000000u;
    V a = (V)((U)x ^ sign), z = x * x;
    V p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    V far = 1.0f - 2.0f / (exponential(a + a) + 1.0f);
    return a < 0.625f ? x + x * z * p : (V)((U)far | sign);
}

inline float sum(V x) {
    float s = 0;
    for (int i = 0; i < W; i++) s += x[i];
    return s;
}

inline float highest(V x) {
    float m = x[0];
    for (int i = 1; i < W; i++) m = x[i] > m ? x[i] : m;
    return m;
}

// --- products with a packed matrix ---
// It is packed in blocks of 4 vectors of columns; a block goes down its rows, a PAIR of them at a time (bf16 is
// multiplied in pairs), vector by vector, the pair's elements side by side.

template <class T> constexpr int PAIR = 4 / sizeof(T);
constexpr int BLOCK = 4 * W;   // columns
constexpr long DEPTH = 768;    // pairs: so much of a block, and of the rows it is multiplied with, stays in the cache

inline V multiply_add(V sum, V b, const float* a) { return sum + b * *a; }
#ifdef __AVX512BF16__
inline V multiply_add(V sum, V b, const bf16* a) {
    int two;
    memcpy(&two, a, 4);
    return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)b, (__m512bh)_mm512_set1_epi32(two));
}
#endif

#define EACH_SUM _Pragma("GCC unroll 6") for (int r = 0; r < R; r++) _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)

// `sums` (R, 4) += `a` (R rows, pairs) times a block.
template <int R, class T> inline void add_product(Row* sums, const T* a, long stride, const T* block, long pairs) {
    V acc[R][4];  // in registers
    EACH_SUM acc[r][j] = sums[r].of[j];
    for (long k = 0; k < pairs; k++, block += BLOCK * PAIR<T>) {
        V b[4];
        memcpy(b, block, sizeof b);
        EACH_SUM acc[r][j] = multiply_add(acc[r][j], b[j], a + r * stride + k * PAIR<T>);
    }
    EACH_SUM sums[r].of[j] = acc[r][j];
}
#undef EACH_SUM

// The same for at most R rows.
template <int R = ROWS, class T>
void add_rows(Row* sums, const T* a, long stride, const T* block, long pairs, long rows) {
    if (rows >= R) return add_product<R>(sums, a, stride, block, pairs);
    if constexpr (R > 1) add_rows<R - 1>(sums, a, stride, block, pairs, rows);
}

inline long ceiling(long n, long by) { return (n + by - 1) / by; }

// A product's left matrix, row by row.
template <class T> struct Left {
    const T* at;
    long rows, pairs, stride;
    std::vector<T> tiles;  // the same for the matrix unit, where there is one
};

#ifdef TILES
// The matrix unit (AMX) multiplies tiles of 16 rows of 64 bytes, which are 16 pairs or 16 sums. Here four hold sums, two
// rows of the left matrix, two a vector each of 16 pairs of a block, which lie 4 vectors apart.
constexpr long TILE = 16, PAIRS = TILE;  // a block's pairs are filled up with zeros

bool tiles_are_ours() {  // Linux gives a process their 8 KiB of state where it asks
    static const bool granted = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return granted;
}

struct alignas(64) TileSizes {
    uint8_t palette = 1, rest[15] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline void in_memory(const void* what) { asm volatile("" ::"r"(what) : "memory"); }  // gcc does not see tiles read it

void take(Left<bf16>& a, const bf16* from, long threads) {  // tile by tile: rows that lie apart are slower to load
    long deep = ceiling(a.pairs, TILE);
    a.at = from;
    if (!tiles_are_ours()) return;
    a.tiles.resize(ceiling(a.rows, TILE) * deep * TILE * TILE * 2);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < a.rows; row++)
        for (long k = 0; k < deep; k++)
            memcpy(&a.tiles[((row / TILE * deep + k) * TILE + row % TILE) * TILE * 2],
                   from + row * a.stride + k * TILE * 2, 4 * std::min(TILE, a.pairs - k * TILE));
}

// `sums` (2 tiles of rows, 4) = rows of `a` from that tile on times a block.
void tile_product(Row* sums, const Left<bf16>& a, long tile, const bf16* block) {
    constexpr long LINE = sizeof(Row), SIZE = TILE * TILE * 2, AHEAD = 4 * TILE * BLOCK * 2;
    long deep = ceiling(a.pairs, TILE);
    bool two = (tile + 1) * TILE < a.rows;
    const bf16* rows = a.tiles.data() + tile * deep * SIZE;
    for (int j = 0; j < 4; j += 2) {
        const bf16* b = block + j * W * 2;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (long k = 0; k < deep; k++, b += TILE * BLOCK * 2) {
            for (long i = 0; i < TILE; i++) {
                _mm_prefetch((const char*)(b + AHEAD + i * BLOCK * 2), _MM_HINT_T0);
                _mm_prefetch((const char*)(b + AHEAD + i * BLOCK * 2 + W * 2), _MM_HINT_T0);
            }
            _tile_loadd(4, rows + k * SIZE, 64);
            _tile_loadd(6, b, LINE);
            _tile_loadd(7, b + W * 2, LINE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (!two) continue;
            _tile_loadd(5, rows + (deep + k) * SIZE, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, sums->of + j, LINE);
        _tile_stored(1, sums->of + j + 1, LINE);
        _tile_stored(2, sums[TILE].of + j, LINE);
        _tile_stored(3, sums[TILE].of + j + 1, LINE);
    }
}

bool by_tiles(Row* sums, const Left<bf16>& a, const bf16* block) {
    static const TileSizes sizes;
    if (!tiles_are_ours()) return false;
    in_memory(&sizes);
    in_memory(a.tiles.data());
    _tile_loadconfig(&sizes);
    for (long tile = 0; tile * TILE < a.rows; tile += 2) tile_product(sums + tile * TILE, a, tile, block);
    _tile_release();
    return true;
}
#else
constexpr long TILE = 1, PAIRS = 1;
#endif

template <class T> void take(Left<T>& a, const T* from, long) { a.at = from; }
template <class T> bool by_tiles(Row*, const Left<T>&, const T*) { return false; }

inline long packed(long k, long pair) { return ceiling(k, pair * PAIRS) * PAIRS; }  // pairs in a block of k rows
template <class T> long block_of(long k) { return BLOCK * packed(k, PAIR<T>) * PAIR<T>; }  // elements
inline long sums_of(long rows) { return ceiling(rows, 2 * TILE) * 2 * TILE; }

// `sums` (rows, 4; memory for `sums_of` so many) = `a` times a block.
template <class T> void product(Row* sums, const Left<T>& a, const T* block) {
    if (by_tiles(sums, a, block)) return;
    memset((void*)sums, 0, a.rows * sizeof *sums);
    for (long k = 0; k < a.pairs; k += DEPTH)
        for (long row = 0; row < a.rows; row += ROWS)
            add_rows(sums + row, a.at + row * a.stride + k * PAIR<T>, a.stride, block + k * BLOCK * PAIR<T>,
                     std::min(DEPTH, a.pairs - k), a.rows - row);
}

// `out` gets `blocks` of k rows, `step` apart; `top(block, vector, lane)` is a column's first element, or null.
template <class T, class Top> void pack(T* out, long blocks, long k, long step, long threads, Top top) {
    constexpr int P = PAIR<T>;
    long pairs = packed(k, P);
#pragma omp parallel for num_threads(threads)
    for (long block = 0; block < blocks; block++) {
        const T* column[BLOCK];
        for (int i = 0; i < BLOCK; i++) column[i] = top(block, i / W, i % W);
        T* to = out + block * pairs * BLOCK * P;
        for (long row = 0; row < pairs * P; row += P)
            for (int i = 0; i < BLOCK; i++)
                for (int p = 0; p < P; p++) *to++ = column[i] && row + p < k ? column[i][(row + p) * step] : T{};
    }
}

// --- an LSTM layer over a window ---

// Recurrent weights (4 hidden, hidden) as `forward` multiplies with them; a block: W units, a vector for each gate.
template <class T> void pack_forward(const T* weight, T* out, long hidden, long threads) {
    pack(out, ceiling(hidden, W), hidden, 1, threads, [=](long block, long gate, long lane) {
        long unit = block * W + lane;
        return unit < hidden ? weight + (gate * hidden + unit) * hidden : nullptr;
    });
}

// `gates` (t, b, 4 hidden): the inputs' part in, activations out, in the order input, forget, cell, output. `h`
// (t + 1, b, width) and `c` (t + 1, b, hidden) begin with the state before the window; width is whole pairs. `matrix`
// is what `pack_forward` makes of the recurrent weights.
template <class T> void forward(T* gates, const float* bias, const T* matrix, T* h, float* c,
                                long t, long b, long hidden, long width, long threads) {
    long blocks = ceiling(hidden, W), depth = block_of<T>(hidden);
    std::vector<Row> scratch(threads * sums_of(b));
    Left<T> before = {nullptr, b, ceiling(hidden, PAIR<T>), width, {}};
    for (long time = 0; time < t; time++) {
        take(before, h + time * b * width, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
        for (long block = 0; block < blocks; block++) {
            long unit = block * W, n = hidden - unit;
            Row* sums = scratch.data() + omp_get_thread_num() * sums_of(b);
            product(sums, before, matrix + block * depth);
            for (long row = 0; row < b; row++) {
                long at = time * b + row, next = at + b;
                T* gate = gates + at * 4 * hidden + unit;
                auto in = [=](int j) {
                    return sums[row].of[j] + load(gate + j * hidden, n) + load(bias + j * hidden + unit, n);
                };
                V i = sigmoid(in(0)), f = sigmoid(in(1)), g = tangent(in(2)), o = sigmoid(in(3));
                V cell = f * load(c + at * hidden + unit, n) + i * g;
                store(c + next * hidden + unit, cell, n);
                store(h + next * width + unit, o * tangent(cell), n);
                store(gate, i, n);
                store(gate + hidden, f, n);
                store(gate + 2 * hidden, g, n);
                store(gate + 3 * hidden, o, n);
            }
        }
    }
}

// `d` (t, b, 4 hidden): gradient by the gates before their activation, from those by the outputs `out` (t, b, hidden),
// by the last output and by the last cell `dc` (b, hidden), which becomes that by the first.
template <class T> void backward(const T* gates, const T* weight, const float* c, const T* out, const float* last,
                                 float* dc, T* d, long t, long b, long hidden, long threads) {
    long blocks = ceiling(hidden, BLOCK), width = 4 * hidden;
    long depth = block_of<T>(width);
    std::vector<T> matrix(blocks * depth);
    std::vector<Row> scratch(threads * sums_of(b));
    Left<T> after = {nullptr, b, width / PAIR<T>, width, {}};
    pack(matrix.data(), blocks, width, hidden, threads, [=](long block, long vector, long lane) {
        long unit = (block * 4 + vector) * W + lane;
        return unit < hidden ? weight + unit : nullptr;
    });
    for (long time = t - 1; time >= 0; time--) {
        if (time + 1 < t) take(after, d + (time + 1) * b * width, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
        for (long block = 0; block < blocks; block++) {
            Row* sums = scratch.data() + omp_get_thread_num() * sums_of(b);
            if (time + 1 < t) product(sums, after, matrix.data() + block * depth);
            for (long row = 0; row < b; row++)
                for (long j = 0, unit = block * BLOCK; j < 4 && unit < hidden; j++, unit += W) {
                    long n = hidden - unit, at = time * b + row, here = row * hidden + unit;
                    const T* gate = gates + at * width + unit;
                    V i = load(gate, n), f = load(gate + hidden, n);
                    V g = load(gate + 2 * hidden, n), o = load(gate + 3 * hidden, n);
                    V dh = load(out + at * hidden + unit, n) + (time + 1 < t ? sums[row].of[j] : load(last + here, n));
                    V before = load(c + at * hidden + unit, n), y = tangent(load(c + (at + b) * hidden + unit, n));
                    V cell = load(dc + here, n) + dh * o * (1.0f - y * y);
                    store(dc + here, cell * f, n);
                    T* to = d + at * width + unit;
                    store(to, cell * g * i * (1.0f - i), n);
                    store(to + hidden, cell * before * f * (1.0f - f), n);
                    store(to + 2 * hidden, cell * i * (1.0f - g * g), n);
                    store(to + 3 * hidden, dh * y * o * (1.0f - o), n);
                }
        }
    }
}

// --- softmax and its gradient ---

// Rows of logits (rows, v) become the gradient of their cross-entropy; `loss` (rows) gets its value.
// A target below 0 is ignored: loss and gradient are 0. One that is no word has no loss: not a number ends the run.
template <class T> void cross_entropy(T* logits, const float* bias, const int64_t* target, float* loss,
                                      long rows, long v, long learning, long threads) {
    long width = ceiling(v, W) * W;
    std::vector<float> scratch(threads * width);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; row++) {
        T* x = logits + row * v;
        float* y = scratch.data() + omp_get_thread_num() * width;
        long hit = target[row];
        if (hit < 0 || hit >= v) {
            loss[row] = hit < 0 ? 0 : NAN;
            memset((void*)x, 0, v * sizeof(T));
            continue;
        }
        V top = V{} - INFINITY, total = {};
        for (long i = 0; i < v; i += W) store(y + i, load(x + i, v - i) + load(bias + i, v - i));
        for (long i = v; i < width; i++) y[i] = -INFINITY;
        for (long i = 0; i < v; i += W) top = load(y + i) > top ? load(y + i) : top;
        float most = highest(top), at_hit = y[hit];
        for (long i = 0; i < v; i += W) {
            V e = exponential(load(y + i) - most);
            total += e;
            store(y + i, e);
        }
        float all = sum(total);  // at least 1: what the lanes after the last word add is lost in rounding
        loss[row] = std::log(all) + (most - at_hit);
        if (!learning) continue;
        float share = 1 / all;
        y[hit] -= all;
        for (long i = 0; i < v; i += W) store(x + i, load(y + i) * share, v - i);
    }
}

template <class T> void add_rows(const T* d, float* out, long rows, long v, long threads) {  // out (v) += d (rows, v)
    constexpr long PART = 128 * W;  // columns whose sums stay in the first cache
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long from = 0; from < v; from += PART)
        for (long row = 0; row < rows; row++)
            for (long i = from; i < from + PART && i < v; i += W)
                store(out + i, load(out + i, v - i) + load(d + row * v + i, v - i), v - i);
}

// `out` (v, rows) += the transpose of d (rows, v).
void add_transposed(const bf16* d, float* out, long rows, long v, long threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long from = 0; from < v; from += W)
        for (long row = 0; row < rows; row += W) {
            float square[W][W];
            long high = std::min<long>(W, rows - row), wide = std::min<long>(W, v - from);
            for (long i = 0; i < high; i++) store(square[i], load(d + (row + i) * v + from, wide));
            for (long j = 0; j < wide; j++)
                for (long i = 0; i < high; i++) out[(from + j) * rows + row + i] += square[i][j];
        }
}

// --- concat pooling of documents, with the sums for AR and TAR ---

// A document's outputs in windows of `bptt` steps: `width` (windows) documents reach into one, this document is at
// `place` (windows, documents) among them.
template <class T> struct Outputs {
    T* const* windows;
    const int64_t *width, *place;
    long bptt, documents, hidden, document;
    T* operator[](long time) const {
        long w = time / bptt;
        return windows[w] + (time % bptt * width[w] + place[w * documents + document]) * hidden;
    }
};

// `pooled` (documents, 3 hidden): last, highest and mean output; `when` (documents, hidden): the step of the highest;
// `sums` (documents, 2): of the squares of outputs and of their changes.
template <class T> void pool(const T* const* windows, const int64_t* width, const int64_t* place, const int64_t* length,
                             float* pooled, float* when, float* sums, long bptt, long documents, long hidden,
                             long threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long j = 0; j < documents; j++) {
        Outputs<const T> out = {windows, width, place, bptt, documents, hidden, j};
        float *last = pooled + j * 3 * hidden, *most = last + hidden, *mean = most + hidden, *first = when + j * hidden;
        V squares = {}, changes = {};
        for (long time = 0; time < length[j]; time++) {
            const T* row = out[time];
            for (long i = 0; i < hidden; i += W) {
                long n = hidden - i;
                V x = load(row + i, n), now = V{} + (float)time;
                V before = time ? load(last + i, n) : x, top = time ? load(most + i, n) : V{} - INFINITY;
                store(last + i, x, n);
                store(mean + i, (time ? load(mean + i, n) : V{}) + x, n);
                store(first + i, x > top ? now : time ? load(first + i, n) : V{}, n);
                store(most + i, x > top ? x : top, n);
                squares += x * x;
                changes += (x - before) * (x - before);
            }
        }
        for (long i = 0; i < hidden; i++) mean[i] /= length[j];
        sums[2 * j] = sum(squares);
        sums[2 * j + 1] = sum(changes);
    }
}

// `d`, like the outputs, `steps` in all: their gradient, from that by `pooled` and those by the two sums.
template <class T> void pool_gradient(const T* const* windows, T* const* d, const int64_t* width, const int64_t* place,
                                      const int64_t* length, const float* pooled, const float* when,
                                      const float* sums, long steps, long bptt, long documents, long hidden,
                                      long threads) {
    float of_squares = 2 * sums[0], of_changes = 2 * sums[1];
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long j = 0; j < documents; j++) {
        Outputs<const T> out = {windows, width, place, bptt, documents, hidden, j};
        Outputs<T> to = {d, width, place, bptt, documents, hidden, j};
        const float *last = pooled + j * 3 * hidden, *most = last + hidden, *mean = most + hidden;
        for (long time = 0; time < length[j]; time++) {
            const T *row = out[time], *before = time ? out[time - 1] : row;
            const T* after = time + 1 < length[j] ? out[time + 1] : row;
            T* dx = to[time];
            for (long i = 0; i < hidden; i += W) {
                long n = hidden - i;
                V x = load(row + i, n), sum = load(mean + i, n) / (float)length[j] + of_squares * x;
                sum += of_changes * (x - load(before + i, n) - (load(after + i, n) - x));
                sum += load(when + j * hidden + i, n) == V{} + (float)time ? load(most + i, n) : V{};
                if (time + 1 == length[j]) sum += load(last + i, n);
                store(dx + i, sum, n);
            }
        }
        long end = std::min(steps, ceiling(length[j], bptt) * bptt);  // padding behind it, up to its last window's end
        for (long time = length[j]; time < end; time++) memset((void*)to[time], 0, hidden * sizeof(T));
    }
}

// --- what is called from outside ---

#define EXPORT(T, NAME)                                                                                               \
    long lstm_packed_size_##NAME(long hidden) { return ceiling(hidden, W) * block_of<T>(hidden); }                    \
    void lstm_pack_##NAME(const T* weight, T* out, long hidden, long threads) {                                       \
        pack_forward(weight, out, hidden, threads);                                                                   \
    }                                                                                                                 \
    void lstm_forward_##NAME(T* gates, const float* bias, const T* matrix, T* h, float* c, long t, long b,            \
                             long hidden, long width, long threads) {                                                 \
        forward(gates, bias, matrix, h, c, t, b, hidden, width, threads);                                             \
    }                                                                                                                 \
    void lstm_backward_##NAME(const T* gates, const T* weight, const float* c, const T* out, const float* last,       \
                              float* dc, T* d, long t, long b, long hidden, long threads) {                           \
        backward(gates, weight, c, out, last, dc, d, t, b, hidden, threads);                                          \
    }
#define EXPORT_POINTWISE(T, NAME)                                                                                     \
    void cross_entropy_##NAME(T* logits, const float* bias, const int64_t* target, float* loss, long rows, long v,    \
                              long learning, long threads) {                                                          \
        cross_entropy(logits, bias, target, loss, rows, v, learning, threads);                                        \
    }                                                                                                                 \
    void add_rows_##NAME(const T* d, float* out, long rows, long v, long threads) {                                   \
        add_rows(d, out, rows, v, threads);                                                                           \
    }                                                                                                                 \
    void pool_forward_##NAME(const T* const* windows, const int64_t* width, const int64_t* place,                     \
                             const int64_t* length, float* pooled, float* when, float* sums, long bptt,               \
                             long documents, long hidden, long threads) {                                             \
        pool(windows, width, place, length, pooled, when, sums, bptt, documents, hidden, threads);                    \
    }                                                                                                                 \
    void pool_backward_##NAME(const T* const* windows, T* const* d, const int64_t* width, const int64_t* place,       \
                              const int64_t* length, const float* pooled, const float* when, const float* sums,       \
                              long steps, long bptt, long documents, long hidden, long threads) {                     \
        pool_gradient(windows, d, width, place, length, pooled, when, sums, steps, bptt, documents, hidden, threads); \
    }
extern "C" {
EXPORT(float, float32)  // for its tests: in float32 torch's own layer is faster
EXPORT_POINTWISE(float, float32)
EXPORT_POINTWISE(bf16, bfloat16)
void add_transposed_bfloat16(const bf16* d, float* out, long rows, long v, long threads) {
    add_transposed(d, out, rows, v, threads);
}
#ifdef __AVX512BF16__
EXPORT(bf16, bfloat16)
#endif
}
