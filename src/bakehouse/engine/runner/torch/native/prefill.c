/* Attention of many rows of one sequence over paged keys and values, as products of bf16 tiles (Dao et al. 2022).

   Keys and values of a head are first laid in panels as weights are in product.c: keys as [keys / 32][dim / 2][32][2],
   values as [dim / 32][keys / 2][32][2]. Row j sees the slots history + j + 1 - window .. history + j. */
#include "common.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#include <stdlib.h>

#define ROWS 12
#define TILE 24
#define KEYS 128
#define MAX_DIM 256

/* c = a panel, or c += a panel: ROWS rows of a, 32 columns. */
INLINE void tile(const uint16_t *a, int64_t a_stride, const uint16_t *panel, int64_t pairs, float *c, int64_t c_stride,
                 const int add) {
    __m512 acc[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < 2; h++) acc[r][h] = add ? _mm512_loadu_ps(c + r * c_stride + h * 16) : _mm512_setzero_ps();
    for (int64_t k = 0; k < pairs; k++) {
        __m512bh w0 = (__m512bh)_mm512_loadu_si512(panel + k * 64);
        __m512bh w1 = (__m512bh)_mm512_loadu_si512(panel + k * 64 + 32);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            int32_t two;
            memcpy(&two, a + r * a_stride + 2 * k, 4);
            __m512bh x = (__m512bh)_mm512_set1_epi32(two);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, w0);
            acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, w1);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(c + r * c_stride + h * 16, acc[r][h]);
}

typedef struct {
    const uint16_t *pool;
    const int32_t *pages;
    int64_t stride, page_size;
} store_of;

INLINE const uint16_t *slot_at(const store_of *kv, int64_t slot) {
    return kv->pool + ((int64_t)kv->pages[slot / kv->page_size] * kv->page_size + slot % kv->page_size) * kv->stride;
}

/* Slots from..from+count of one head, count filled up to whole blocks of KEYS with zeros. */
static void pack(const store_of *kv, int64_t k_at, int64_t v_at, int64_t from, int64_t count, int64_t dim,
                 uint16_t *keys, uint16_t *values) {
    int64_t whole = (count + KEYS - 1) / KEYS * KEYS;
    for (int64_t j = 0; j < whole; j += 2) {
        uint32_t rows[2][MAX_DIM / 2] = {0};
        uint16_t v[2][MAX_DIM] = {0};
        for (int s = 0; s < 2 && j + s < count; s++) {
            const uint16_t *row = slot_at(kv, from + j + s);
            memcpy(rows[s], row + k_at, dim * 2);
            memcpy(v[s], row + v_at, dim * 2);
        }
        uint32_t *k = (uint32_t *)keys + j / 32 * (dim / 2) * 32 + j % 32;
        for (int64_t i = 0; i < dim / 2; i++) {
            k[i * 32] = rows[0][i];
            k[i * 32 + 1] = rows[1][i];
        }
        for (int64_t c = 0; c < dim; c += 32) {
            uint16_t *to = values + (c / 32 * (whole / 2) + j / 2) * 64;
            for (int i = 0; i < 32; i++) {
                to[2 * i] = v[0][c + i];
                to[2 * i + 1] = v[1][c + i];
            }
        }
    }
}

INLINE v16 tanh16(v16 x) { return 1.0f - 2.0f / (1.0f + exp16(2.0f * x)); }

/* Scores of one row over keys of which lo..hi are seen, into weights in bf16; acc is shrunk where the maximum grew. */
INLINE void soften(float *scores, uint16_t *weights, int64_t lo, int64_t hi, float scale, float softcap, float *top,
                   float *total, float *acc, int64_t dim) {
    v16 best = splat(-INFINITY);
    const i16x lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t i = 0; i < KEYS; i += LANES) {
        v16 s = load_f32(scores + i) * scale;
        if (softcap > 0) s = tanh16(s / softcap) * softcap;
        if (lo > i || hi < i + LANES) {
            i16x seen = (lanes + (int32_t)i >= (int32_t)lo) & (lanes + (int32_t)i < (int32_t)hi);
            s = (v16)(((i16x)s & seen) | ((i16x)splat(-INFINITY) & ~seen));
        }
        store(F32, scores, i, s);
        i16x more = s > best;
        best = (v16)(((i16x)s & more) | ((i16x)best & ~more));
    }
    float high = *top;
    for (int i = 0; i < LANES; i++) high = best[i] > high ? best[i] : high;
    if (high == -INFINITY) {
        memset(weights, 0, KEYS * 2);
        return;
    }
    v16 sums = splat(0);
    for (int64_t i = 0; i < KEYS; i += LANES) {
        v16 e = exp16(load_f32(scores + i) - high);
        sums += e;
        _mm256_storeu_si256((void *)(weights + i), (__m256i)_mm512_cvtneps_pbh((__m512)e));
    }
    if (high != *top) {
        float shrink = *top == -INFINITY ? 0.0f : expf(*top - high);
        *total *= shrink;
        for (int64_t i = 0; i < dim; i += LANES) store(F32, acc, i, load_f32(acc + i) * shrink);
        *top = high;
    }
    *total += sum(sums);
}

/* Query vectors t0..t0+TILE of one key head: vector t is row t / group, head t % group of the group. */
static void queries(const uint16_t *q, uint16_t *out, int64_t vectors, int64_t t0, int64_t group, int64_t q_stride,
                    int64_t dim, const uint16_t *keys, const uint16_t *values, int64_t from, int64_t whole,
                    int64_t history, int64_t window, float scale, float softcap, const float *sinks) {
    uint16_t a[TILE * MAX_DIM] = {0}, weights[TILE * KEYS];
    float scores[TILE * KEYS], acc[TILE * MAX_DIM], top[TILE], total[TILE];
    int64_t n = vectors - t0 < TILE ? vectors - t0 : TILE;
    for (int t = 0; t < TILE; t++) {
        top[t] = -INFINITY;
        total[t] = 0;
        if (t < n) memcpy(a + t * dim, q + (t0 + t) / group * q_stride + (t0 + t) % group * dim, dim * 2);
    }
    memset(acc, 0, sizeof(float) * TILE * dim);
    int64_t last = history + (t0 + n - 1) / group + 1 - from, early = history + t0 / group + 1 - window - from;
    int64_t begin = window && early > 0 ? early / KEYS * KEYS : 0;
    for (int64_t key = begin; key < last; key += KEYS) {
        for (int t = 0; t < n; t += ROWS)
            for (int64_t p = 0; p < KEYS; p += 32)
                tile(a + t * dim, dim, keys + (key + p) * dim, dim / 2, scores + t * KEYS + p, KEYS, 0);
        for (int t = 0; t < TILE; t++) {
            int64_t stop = history + (t0 + t) / group + 1 - from;
            if (t < n)
                soften(scores + t * KEYS, weights + t * KEYS, window ? stop - window - key : 0, stop - key, scale,
                       softcap, &top[t], &total[t], acc + t * dim, dim);
            else
                memset(weights + t * KEYS, 0, KEYS * 2);
        }
        for (int t = 0; t < n; t += ROWS)
            for (int64_t c = 0; c < dim; c += 32)
                tile(weights + t * KEYS, KEYS, values + (c / 32 * (whole / 2) + key / 2) * 64, KEYS / 2,
                     acc + t * dim + c, dim, 1);
    }
    for (int t = 0; t < n; t++) {
        float sum = total[t] + (sinks ? expf(sinks[(t0 + t) % group] - top[t]) : 0);
        uint16_t *to = out + (t0 + t) / group * q_stride + (t0 + t) % group * dim;
        for (int64_t i = 0; i < dim; i += LANES) store_bf16(to + i, load_f32(acc + t * dim + i) / sum);
    }
}

/* Rows of q and out are [key heads][group][dim]. 0, or 1 where this shape has no kernel or memory is short. */
int64_t bh_prefill(int64_t group, int64_t dim, const uint16_t *q, const uint16_t *pool, int64_t stride, uint16_t *out,
                   const int32_t *pages, int64_t count, int64_t history, int64_t window, const float *sinks,
                   int64_t kv_heads, int64_t page_size, double scale, double softcap, int64_t threads) {
    if (dim % 32 || dim > MAX_DIM) return 1;
    store_of kv = {pool, pages, stride, page_size};
    int64_t from = window && history + 1 > window ? history + 1 - window : 0;
    int64_t whole = (history + count - from + KEYS - 1) / KEYS * KEYS, q_stride = kv_heads * group * dim;
    int failed = 0;
#pragma omp parallel num_threads((int)threads) if (count > 0)
    {
        uint16_t *keys = malloc(whole * dim * 2 + 64), *values = malloc(whole * dim * 2 + 64);
        if (!keys || !values) failed = 1;
#pragma omp for schedule(dynamic, 1)
        for (int64_t h = 0; h < kv_heads; h++) {
            if (!keys || !values) continue;
            pack(&kv, h * dim, (kv_heads + h) * dim, from, history + count - from, dim, keys, values);
            for (int64_t t = 0; t < count * group; t += TILE)
                queries(q + h * group * dim, out + h * group * dim, count * group, t, group, q_stride, dim, keys,
                        values, from, whole, history, window, (float)scale, (float)softcap,
                        sinks ? sinks + h * group : NULL);
        }
        free(keys);
        free(values);
    }
    return failed;
}
#else
int64_t bh_prefill(int64_t group, int64_t dim, const uint16_t *q, const uint16_t *pool, int64_t stride, uint16_t *out,
                   const int32_t *pages, int64_t count, int64_t history, int64_t window, const float *sinks,
                   int64_t kv_heads, int64_t page_size, double scale, double softcap, int64_t threads) {
    return 1;
}
#endif
