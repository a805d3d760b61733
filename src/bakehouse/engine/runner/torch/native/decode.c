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

/* Columns from..from+CHUNK of acc += weights . values, for some of the queries. */
INLINE void add_values(const int type, const int group, const int columns, const void *pool, int64_t at, int64_t stride,
                       int64_t count, float (*weights)[LANES], float (*acc)[MAX_DIM]) {
    v16 sums[4][CHUNK / LANES];
    for (int g = 0; g < group; g++)
        for (int i = 0; i < columns / LANES; i++) sums[g][i] = load_f32(&acc[g][i * LANES]);
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
        add_values(type, N, columns, pool, row + v_at + i, stride, count, weights + g, (float(*)[MAX_DIM]) & acc[g][i]); \
        break;

INLINE void prefetch(const void *base, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)base + i, 0, 2);
}

/* One key head of one sequence and the queries that share it. */
INLINE void one_head(const int type, const int group, const int dim, const void *query, int64_t q_at, const void *pool,
                     int64_t k_at, int64_t v_at, int64_t stride, const int32_t *pages, int64_t page_size, int64_t first,
                     int64_t stop, float scale, float softcap, const float *sinks, void *out) {
    const int64_t size = type == BF16 ? 2 : 4;
    queries q;
    float acc[MAX_GROUP][MAX_DIM], top[MAX_GROUP], total[MAX_GROUP];
    for (int g = 0; g < group; g++) {
        top[g] = -INFINITY;
        total[g] = 0;
        for (int i = 0; i < dim; i += LANES) {
            store(F32, q.wide[g], i, load(type, query, q_at + g * dim + i));
            store(F32, acc[g], i, splat(0));
        }
        if (type == BF16) memcpy(q.narrow[g], (const uint16_t *)query + q_at + g * dim, dim * 2);
    }
    for (int64_t slot = first; slot < stop;) {
        int64_t offset = slot % page_size, count = page_size - offset;
        if (count > stop - slot) count = stop - slot;
        if (count > BLOCK) count = BLOCK;
        int64_t row = ((int64_t)pages[slot / page_size] * page_size + offset) * stride;
        slot += count;
        /* The values of this block and the keys of the next one are asked for before they are needed. */
        int64_t ahead = slot < stop ? ((int64_t)pages[slot / page_size] * page_size + slot % page_size) * stride : row;
        int64_t more = slot < stop ? (stop - slot < count ? stop - slot : count) : 0;
        for (int64_t j = 0; j < count; j++) prefetch((const char *)pool + (row + j * stride + v_at) * size, dim * size);
        for (int64_t j = 0; j < more; j++) prefetch((const char *)pool + (ahead + j * stride + k_at) * size, dim * size);

        float weights[MAX_GROUP][LANES], dots[MAX_GROUP];
        for (int g = 0; g < group; g++) store(F32, weights[g], 0, splat(-INFINITY));
        for (int64_t j = 0; j < count; j++) {
            dot(type, group, dim, &q, pool, row + j * stride + k_at, dots);
            for (int g = 0; g < group; g++) weights[g][j] = dots[g] * scale;
        }
        for (int g = 0; g < group; g++) {
            float best = top[g];
            for (int j = 0; j < count; j++) {
                if (softcap > 0) weights[g][j] = tanhf(weights[g][j] / softcap) * softcap;
                best = weights[g][j] > best ? weights[g][j] : best;
            }
            v16 e = exp16(load_f32(weights[g]) - best);
            store(F32, weights[g], 0, e);
            if (best != top[g]) {
                float shrink = top[g] == -INFINITY ? 0.0f : expf(top[g] - best);
                total[g] *= shrink;
                for (int i = 0; i < dim; i += LANES) store(F32, acc[g], i, load_f32(&acc[g][i]) * shrink);
                top[g] = best;
            }
            total[g] += sum(e);
        }
        const int columns = dim < CHUNK ? dim : CHUNK;
        for (int g = 0; g < group; g += 4)
            for (int i = 0; i < dim; i += columns)
                switch (group - g < 4 ? group - g : 4) {
                    VALUES(1) VALUES(2) VALUES(3) VALUES(4)
                }
    }
    for (int g = 0; g < group; g++) {
        float whole = total[g];
        if (sinks) whole += expf(sinks[g] - top[g]);
        for (int i = 0; i < dim; i += LANES) store(type, out, q_at + g * dim + i, load_f32(&acc[g][i]) / whole);
    }
}

/* Sequence s reads slots firsts[s]..stops[s], page p of it is pages[starts[s] + p], its query is row rows[s]. */
INLINE void all_heads(const int type, const int group, const int dim, const void *q, const void *pool, int64_t stride,
                      void *out, const int64_t *rows, const int32_t *pages, const int64_t *starts,
                      const int64_t *firsts, const int64_t *stops, const float *sinks, int64_t sequences,
                      int64_t kv_heads, int64_t page_size, float scale, float softcap, int threads) {
    int64_t tasks = sequences * kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t s = task / kv_heads, h = task % kv_heads;
        one_head(type, group, dim, q, (rows[s] * kv_heads + h) * group * dim, pool, h * dim, (kv_heads + h) * dim, stride,
                 pages + starts[s], page_size, firsts[s], stops[s], scale, softcap, sinks ? sinks + h * group : NULL, out);
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
