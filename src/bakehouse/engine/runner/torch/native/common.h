/* What the kernels share: 16 floats at a time, in GCC's vector extensions, so that any processor can be compiled for. */
#pragma once
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16x __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));
typedef uint32_t u16x __attribute__((vector_size(64)));

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

enum { F32 = 0, BF16 = 1 };

INLINE v16 load_f32(const float *p) {
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE v16 load_bf16(const uint16_t *p) {
    h16 h;
    memcpy(&h, p, sizeof h);
    u16x wide = __builtin_convertvector(h, u16x) << 16;
    v16 v;
    memcpy(&v, &wide, sizeof v);
    return v;
}

/* Round to nearest, ties to even; a NaN stays one. */
INLINE void store_bf16(uint16_t *p, v16 v) {
    u16x bits;
    memcpy(&bits, &v, sizeof v);
    u16x rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    u16x nan = (u16x)((bits & 0x7fffffff) > 0x7f800000);
    rounded = (rounded & ~nan) | (nan & 0x7fc0);
    h16 h = __builtin_convertvector(rounded, h16);
    memcpy(p, &h, sizeof h);
}

INLINE v16 load(const int type, const void *base, int64_t at) {
    return type == BF16 ? load_bf16((const uint16_t *)base + at) : load_f32((const float *)base + at);
}

INLINE void store(const int type, void *base, int64_t at, v16 v) {
    if (type == BF16)
        store_bf16((uint16_t *)base + at, v);
    else
        memcpy((float *)base + at, &v, sizeof v);
}

INLINE v16 splat(float x) { return (v16){0} + x; }

INLINE float sum(v16 v) {
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return v[0];
}

/* exp by 2^n * polynomial (Cephes, single precision); below -87 it is 0. */
INLINE v16 exp16(v16 x) {
    i16x tiny = x < -87.0f;
    v16 bounded = x;
    i16x over = x > 88.0f;
    bounded = (v16)(((i16x)bounded & ~over) | ((i16x)splat(88.0f) & over));
    bounded = (v16)(((i16x)bounded & ~tiny) | ((i16x)splat(-87.0f) & tiny));
    v16 scaled = bounded * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    i16x n = (i16x)scaled - 0x4b400000;
    v16 whole = scaled - 12582912.0f;
    v16 r = bounded - whole * 0.693359375f - whole * -2.12194440e-4f;
    v16 y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    i16x power = (n + 127) << 23;
    v16 result = y * (v16)power;
    return (v16)((i16x)result & ~tiny);
}
