/* Attention of single rows over paged keys and values, read where they lie. Softmax is summed as it goes along
   (Milakov and Gimelshein 2018; Dao et al. 2022): nothing of the length of a sequence is ever stored. */
#include "common.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define MAX_GROUP 8
#define MAX_DIM 256
#define BLOCK 16
#define CHUNK 64
#define MAX_HEADS 8

/* The queries that share a key head, in float32 and, where the processor multiplies bf16, as they came. */
typedef struct {
    float wide[MAX_GROUP][MAX_DIM];
    uint16_t narrow[MAX_GROUP][MAX_DIM];
} queries;

/* dots[g] = query g . key */
INLINE void dot(const int type, const int group, const int dim, const queries *q, const void *pool, int64_t at,
                float dots[MAX_GROUP]) {
#ifdef __AVX512BF16__
    if (type == BF16 && dim % 32 == 0) {
        __m512 sums[MAX_GROUP];
        for (int g = 0; g < group; g++) sums[g] = _mm512_setzero_ps();
#pragma GCC unroll 8
        for (int i = 0; i < dim; i += 32) {
            __m512bh k = (__m512bh)_mm512_loadu_si512((const uint16_t *)pool + at + i);
            for (int g = 0; g < group; g++)
                sums[g] = _mm512_dpbf16_ps(sums[g], (__m512bh)_mm512_loadu_si512(&q->narrow[g][i]), k);
        }
        for (int g = 0; g < group; g++) dots[g] = sum((v16)sums[g]);
        return;
    }
#endif
    v16 sums[MAX_GROUP];
    for (int g = 0; g < group; g++) sums[g] = splat(0);
#pragma GCC unroll 16
    for (int i = 0; i < dim; i += LANES) {
        v16 k = load(type, pool, at + i);
        for (int g = 0; g < group; g++) sums[g] += k * load_f32(&q->wide[g][i]);
    }
    for (int g = 0; g < group; g++) dots[g] = sum(sums[g]);
}

/* Where the processor multiplies bf16, values of two keys are taken at once. That interleaves them, so 32 sums stand as
   2 x 16 in the order in which unpacking leaves them, until `natural` puts them back. */
#ifdef __AVX512BF16__
#define IN_PAIRS(type, dim) ((type) == BF16 && (dim) % 32 == 0)
#else
#define IN_PAIRS(type, dim) 0
#endif

INLINE void natural(const float *sums, float *out) {
    for (int lane = 0; lane < 4; lane++) {
        memcpy(out + 8 * lane, sums + 4 * lane, 16);
        memcpy(out + 8 * lane + 4, sums + 16 + 4 * lane, 16);
    }
}

/* Columns from..from+CHUNK of acc += weights . values, for some of the queries. */
INLINE void add_values(const int type, const int group, const int columns, const void *pool, int64_t at, int64_t stride,
                       int64_t count, float (*weights)[LANES], float (*acc)[MAX_DIM]) {
    v16 sums[4][CHUNK / LANES];
    for (int g = 0; g < group; g++)
        for (int i = 0; i < columns / LANES; i++) sums[g][i] = load_f32(&acc[g][i * LANES]);
#ifdef __AVX512BF16__
    if (IN_PAIRS(type, columns)) {
        uint16_t narrow[4][LANES];
        for (int g = 0; g < group; g++) store_bf16(narrow[g], load_f32(weights[g]));
        for (int64_t j = 0; j < count; j += 2) {
            const uint16_t *one = (const uint16_t *)pool + at + j * stride, *two = j + 1 < count ? one + stride : one;
#pragma GCC unroll 2
            for (int i = 0; i < columns; i += 32) {
                __m512i a = _mm512_loadu_si512(one + i), b = _mm512_loadu_si512(two + i);
                __m512bh low = (__m512bh)_mm512_unpacklo_epi16(a, b), high = (__m512bh)_mm512_unpackhi_epi16(a, b);
#pragma GCC unroll 4
                for (int g = 0; g < group; g++) {
                    int32_t both;
                    memcpy(&both, &narrow[g][j], 4);
                    __m512bh w = (__m512bh)_mm512_set1_epi32(both);
                    sums[g][i / 16] = (v16)_mm512_dpbf16_ps((__m512)sums[g][i / 16], w, low);
                    sums[g][i / 16 + 1] = (v16)_mm512_dpbf16_ps((__m512)sums[g][i / 16 + 1], w, high);
                }
            }
        }
        for (int g = 0; g < group; g++)
            for (int i = 0; i < columns / LANES; i++) store(F32, acc[g], i * LANES, sums[g][i]);
        return;
    }
#endif
    for (int64_t j = 0; j < count; j++)
#pragma GCC unroll 4
        for (int i = 0; i < columns / LANES; i++) {
            v16 v = load(type, pool, at + j * stride + i * LANES);
#pragma GCC unroll 4
            for (int g = 0; g < group; g++) sums[g][i] += v * weights[g][j];
        }
    for (int g = 0; g < group; g++)
        for (int i = 0; i < columns / LANES; i++) store(F32, acc[g], i * LANES, sums[g][i]);
}

#define VALUES(N)                                                                                                      \
    case N:                                                                                                            \
        add_values(type, N, columns, pool, v_at + i, stride, count, weights + g, (float(*)[MAX_DIM]) & s->acc[g][i]);  \
        break;

INLINE void prefetch(const void *base, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)base + i, 0, 2);
}

/* Where one key head of one sequence stands: its queries, and what their softmax has come to. */
typedef struct {
    queries q;
    float acc[MAX_GROUP][MAX_DIM], top[MAX_GROUP], total[MAX_GROUP];
} state;

INLINE void start(const int type, const int group, const int dim, state *s, const void *query, int64_t q_at) {
    for (int g = 0; g < group; g++) {
        s->top[g] = -INFINITY;
        s->total[g] = 0;
        for (int i = 0; i < dim; i += LANES) {
            store(F32, s->q.wide[g], i, load(type, query, q_at + g * dim + i));
            store(F32, s->acc[g], i, splat(0));
        }
        if (type == BF16) memcpy(s->q.narrow[g], (const uint16_t *)query + q_at + g * dim, dim * 2);
    }
}

/* The next keys, up to BLOCK of them, the first one at k_at and its value to_v further on. Meanwhile what the next block
   will read is asked for, a little with each key: all at once it would have to be waited for. */
INLINE void block(const int type, const int group, const int dim, state *s, const void *pool, int64_t k_at,
                  int64_t to_v, int64_t stride, int64_t count, const char *ahead, int64_t more, float scale,
                  float softcap) {
    const int64_t size = type == BF16 ? 2 : 4, v_at = k_at + to_v;
    float weights[MAX_GROUP][LANES], dots[MAX_GROUP];
    for (int g = 0; g < group; g++) store(F32, weights[g], 0, splat(-INFINITY));
    for (int64_t j = 0; j < count; j++) {
        if (j < more) {
            prefetch(ahead + j * stride * size, dim * size);
            prefetch(ahead + (j * stride + to_v) * size, dim * size);
        }
        dot(type, group, dim, &s->q, pool, k_at + j * stride, dots);
        for (int g = 0; g < group; g++) weights[g][j] = dots[g] * scale;
    }
    for (int g = 0; g < group; g++) {
        float best = s->top[g];
        for (int j = 0; j < count; j++) {
            if (softcap > 0) weights[g][j] = tanhf(weights[g][j] / softcap) * softcap;
            best = weights[g][j] > best ? weights[g][j] : best;
        }
        v16 e = exp16(load_f32(weights[g]) - best);
        store(F32, weights[g], 0, e);
        if (best != s->top[g]) {
            float shrink = s->top[g] == -INFINITY ? 0.0f : expf(s->top[g] - best);
            s->total[g] *= shrink;
            for (int i = 0; i < dim; i += LANES) store(F32, s->acc[g], i, load_f32(&s->acc[g][i]) * shrink);
            s->top[g] = best;
        }
        s->total[g] += sum(e);
    }
    const int columns = dim < CHUNK ? dim : CHUNK;
    for (int g = 0; g < group; g += 4)
        for (int i = 0; i < dim; i += columns)
            switch (group - g < 4 ? group - g : 4) {
                VALUES(1) VALUES(2) VALUES(3) VALUES(4)
            }
}

INLINE void finish(const int type, const int group, const int dim, const state *s, const float *sinks, void *out,
                   int64_t at) {
    for (int g = 0; g < group; g++) {
        float whole = s->total[g];
        if (sinks) whole += expf(sinks[g] - s->top[g]);
        float ordered[MAX_DIM];
        for (int i = 0; IN_PAIRS(type, dim) && i < dim; i += 32) natural(&s->acc[g][i], ordered + i);
        const float *sums = IN_PAIRS(type, dim) ? ordered : s->acc[g];
        for (int i = 0; i < dim; i += LANES) store(type, out, at + g * dim + i, load_f32(sums + i) / whole);
    }
}

/* Sequence s reads slots firsts[s]..stops[s], page p of it is pages[starts[s] + p], its query is row rows[s]. The heads
   of a task go through a sequence together, so that memory is read in its order. */
INLINE void all_heads(const int type, const int group, const int dim, const void *q, const void *pool, int64_t stride,
                      void *out, const int64_t *rows, const int32_t *pages, const int64_t *starts,
                      const int64_t *firsts, const int64_t *stops, const float *sinks, int64_t sequences,
                      int64_t kv_heads, int64_t page_size, float scale, float softcap, int threads) {
    const int64_t size = type == BF16 ? 2 : 4;
    int64_t each = kv_heads < MAX_HEADS ? kv_heads : MAX_HEADS;
    while (each > 1 && sequences * ((kv_heads + each - 1) / each) < 3 * threads) each = (each + 1) / 2;
    int64_t parts = (kv_heads + each - 1) / each;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < sequences * parts; task++) {
        int64_t n = task / parts, h0 = task % parts * each, h1 = h0 + each < kv_heads ? h0 + each : kv_heads;
        const int32_t *mine = pages + starts[n];
        int64_t at = (rows[n] * kv_heads + h0) * group * dim;
        state s[MAX_HEADS];
        for (int64_t h = h0; h < h1; h++) start(type, group, dim, &s[h - h0], q, at + (h - h0) * group * dim);
        for (int64_t slot = firsts[n]; slot < stops[n];) {
            int64_t offset = slot % page_size, count = page_size - offset;
            if (count > stops[n] - slot) count = stops[n] - slot;
            if (count > BLOCK) count = BLOCK;
            int64_t row = ((int64_t)mine[slot / page_size] * page_size + offset) * stride;
            slot += count;
            int64_t more = stops[n] - slot < count ? stops[n] - slot : count;
            int64_t ahead = more ? ((int64_t)mine[slot / page_size] * page_size + slot % page_size) * stride : 0;
            for (int64_t h = h0; h < h1; h++) {
                block(type, group, dim, &s[h - h0], pool, row + h * dim, kv_heads * dim, stride, count,
                      (const char *)pool + (ahead + h * dim) * size, more, scale, softcap);
            }
        }
        for (int64_t h = h0; h < h1; h++)
            finish(type, group, dim, &s[h - h0], sinks ? sinks + h * group : NULL, out, at + (h - h0) * group * dim);
    }
}

#define CALL(T, G, D)                                                                                                  \
    if (type == T && group == G && dim == D) {                                                                         \
        all_heads(T, G, D, q, pool, stride, out, rows, pages, starts, firsts, stops, sinks, sequences, kv_heads,       \
                  page_size, (float)scale, (float)softcap, (int)threads);                                              \
        return 0;                                                                                                      \
    }
#define GROUPS(T, D)                                                                                                   \
    CALL(T, 1, D) CALL(T, 2, D) CALL(T, 3, D) CALL(T, 4, D) CALL(T, 5, D) CALL(T, 6, D) CALL(T, 7, D) CALL(T, 8, D)

/* 0, or 1 where this shape has no kernel (asked with no sequences when a model is loaded). */
int64_t bh_decode(int64_t type, int64_t group, int64_t dim, const void *q, const void *pool, int64_t stride, void *out,
                  const int64_t *rows, const int32_t *pages, const int64_t *starts, const int64_t *firsts,
                  const int64_t *stops, const float *sinks, int64_t sequences, int64_t kv_heads, int64_t page_size,
                  double scale, double softcap, int64_t threads) {
    GROUPS(BF16, 64) GROUPS(BF16, 128) CALL(BF16, 1, 256) CALL(BF16, 2, 256) CALL(BF16, 4, 256) CALL(BF16, 8, 256)
    CALL(BF16, 2, 32) CALL(F32, 1, 32) CALL(F32, 2, 32) GROUPS(F32, 64) GROUPS(F32, 128)
    return 1;
}
