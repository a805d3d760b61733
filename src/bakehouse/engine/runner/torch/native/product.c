/* Products with weights of bf16, int8 or int4 for processors with AVX512-BF16.

   Weights lie in panels of 32 outputs: [outputs / 32][inputs / 2][32 outputs][2 inputs], which is the order in which
   vdpbf16ps reads them; so a panel streams from memory once, whatever the number of rows. int8 and int4 are turned into
   bf16 on the way, exactly (they are small integers), and their scales are applied to the sums in float32. */
#include "common.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>

#define GROUP 32
enum { W_BF16 = 0, W_INT8 = 1, W_INT4 = 2 };

INLINE __m512bh pair(const uint16_t *x) {
    int32_t two;
    memcpy(&two, x, 4);
    return (__m512bh)_mm512_set1_epi32(two);
}

INLINE __m512bh from_int8(__m256i bytes) {
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
    return _mm512_cvtne2ps_pbh(high, low);
}

/* -8..7 as bf16, twice, so that the fifth bit of an index does not matter. */
static const uint16_t NIBBLES[32] = {
    0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
    0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
    0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};

/* Two inputs of 32 outputs. */
INLINE void weights(const int kind, const void *panel, int64_t k2, __m512i table, __m512bh *w0, __m512bh *w1) {
    if (kind == W_BF16) {
        *w0 = (__m512bh)_mm512_loadu_si512((const uint16_t *)panel + k2 * 64);
        *w1 = (__m512bh)_mm512_loadu_si512((const uint16_t *)panel + k2 * 64 + 32);
    } else if (kind == W_INT8) {
        *w0 = from_int8(_mm256_loadu_si256((const void *)((const int8_t *)panel + k2 * 64)));
        *w1 = from_int8(_mm256_loadu_si256((const void *)((const int8_t *)panel + k2 * 64 + 32)));
    } else {
        __m512i both = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)((const uint8_t *)panel + k2 * 32)));
        *w0 = (__m512bh)_mm512_permutexvar_epi16(both, table);
        *w1 = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table);
    }
}

INLINE int64_t panel_bytes(const int kind, int64_t inputs) {
    return inputs * (kind == W_BF16 ? 64 : kind == W_INT8 ? 32 : 16);
}

/* Rows row..row+m of x times one panel, into 32 outputs each. */
INLINE void block(const int kind, const int m, const uint16_t *x, int64_t inputs, const void *panel,
                  const uint16_t *scales, const float *bias, uint16_t *y, int64_t outputs, int64_t width) {
    __m512 acc[12][2], whole[12][2];
    __m512i table = _mm512_loadu_si512(NIBBLES);
#pragma GCC unroll 16
    for (int r = 0; r < m; r++)
        for (int h = 0; h < 2; h++) acc[r][h] = whole[r][h] = _mm512_setzero_ps();
    const int64_t step = kind == W_INT4 ? GROUP / 2 : inputs / 2;
    const char *stream = (const char *)panel;
    for (int64_t from = 0; from < inputs / 2; from += step) {
        for (int64_t k2 = from; k2 < from + step; k2++) {
            __m512bh w0, w1;
            weights(kind, panel, k2, table, &w0, &w1);
            const int64_t bytes = kind == W_BF16 ? 128 : kind == W_INT8 ? 64 : 32;
            _mm_prefetch(stream + k2 * bytes + 2048, _MM_HINT_T0);
            if (kind == W_BF16) _mm_prefetch(stream + k2 * bytes + 2112, _MM_HINT_T0);
#pragma GCC unroll 16
            for (int r = 0; r < m; r++) {
                __m512bh a = pair(x + r * inputs + 2 * k2);
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], a, w0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], a, w1);
            }
        }
        if (kind == W_INT4) {
            const uint16_t *group = scales + from / step * 32;
            __m512 s0 = (__m512)load_bf16(group), s1 = (__m512)load_bf16(group + 16);
#pragma GCC unroll 16
            for (int r = 0; r < m; r++) {
                whole[r][0] = _mm512_fmadd_ps(acc[r][0], s0, whole[r][0]);
                whole[r][1] = _mm512_fmadd_ps(acc[r][1], s1, whole[r][1]);
                acc[r][0] = acc[r][1] = _mm512_setzero_ps();
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < m; r++)
        for (int h = 0; h < 2; h++) {
            v16 v = (v16)(kind == W_INT4 ? whole[r][h] : acc[r][h]);
            if (kind == W_INT8) v *= load_bf16(scales + h * 16);
            if (bias) v += load_f32(bias + h * 16);
            if (width >= (h + 1) * 16) {
                store_bf16(y + r * outputs + h * 16, v);
            } else {
                uint16_t some[16];
                store_bf16(some, v);
                for (int64_t i = h * 16; i < width; i++) y[r * outputs + i] = some[i - h * 16];
            }
        }
}

#define ROWS(M)                                                                                                        \
    case M:                                                                                                            \
        block(kind, M, x + row * inputs, inputs, panel, scale, add, y + row * outputs + at, outputs, width);           \
        break;

INLINE void panels(const int kind, const int most, const uint16_t *x, const char *w, const uint16_t *scales,
                   const float *bias, uint16_t *y, int64_t rows, int64_t inputs, int64_t outputs, int threads) {
    int64_t count = (outputs + 31) / 32, parts = (rows + most - 1) / most;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < count; p++) {
        const void *panel = w + p * panel_bytes(kind, inputs);
        const uint16_t *scale = kind == W_INT8 ? scales + p * 32 : kind == W_INT4 ? scales + p * inputs / GROUP * 32 : NULL;
        const float *add = bias ? bias + p * 32 : NULL;
        int64_t at = p * 32, width = outputs - at < 32 ? outputs - at : 32;
        for (int64_t part = 0; part < parts; part++) {
            int64_t row = rows * part / parts, m = rows * (part + 1) / parts - row;
            if (kind == W_INT4)
                switch (m) { ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) }
            else
                switch (m) {
                    ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
                }
        }
    }
}

int64_t bh_product(int64_t kind, const uint16_t *x, const char *w, const uint16_t *scales, const float *bias,
                   uint16_t *y, int64_t rows, int64_t inputs, int64_t outputs, int64_t threads) {
    if (kind == W_BF16) panels(W_BF16, 12, x, w, NULL, bias, y, rows, inputs, outputs, (int)threads);
    if (kind == W_INT8) panels(W_INT8, 12, x, w, scales, bias, y, rows, inputs, outputs, (int)threads);
    if (kind == W_INT4) panels(W_INT4, 6, x, w, scales, bias, y, rows, inputs, outputs, (int)threads);
    return 0;
}
#else
int64_t bh_product(int64_t kind, const uint16_t *x, const char *w, const uint16_t *scales, const float *bias,
                   uint16_t *y, int64_t rows, int64_t inputs, int64_t outputs, int64_t threads) {
    return 1;
}
#endif
