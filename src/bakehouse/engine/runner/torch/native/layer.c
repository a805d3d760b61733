/* Everything of a decoder layer that is neither a product with weights nor attention. Rows are tokens. */
#include "common.h"

/* out = norm(x + residual) * (weight + plus), x + residual is kept in place of residual where there is one.
   Norm: x / sqrt(mean(x^2) + eps), Zhang and Sennrich 2019. */
INLINE void norm_rows(const int type, void *x, void *residual, const float *weight, void *out, int64_t rows,
                      int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows >= 8) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        int64_t base = row * width;
        v16 squares = {0};
        for (int64_t i = 0; i < width; i += LANES) {
            v16 v = load(type, x, base + i);
            if (residual) {
                v += load(type, residual, base + i);
                store(type, residual, base + i, v);
                v = load(type, residual, base + i);
            }
            squares += v * v;
        }
        float scale = 1.0f / sqrtf(sum(squares) / (float)width + eps);
        const void *from = residual ? residual : x;
        for (int64_t i = 0; i < width; i += LANES)
            store(type, out, base + i, load(type, from, base + i) * scale * load_f32(weight + i));
    }
}

void bh_norm(int64_t type, void *x, void *residual, const float *weight, void *out, int64_t rows, int64_t width,
             double eps, int64_t threads) {
    if (type == BF16)
        norm_rows(BF16, x, residual, weight, out, rows, width, (float)eps, (int)threads);
    else
        norm_rows(F32, x, residual, weight, out, rows, width, (float)eps, (int)threads);
}

/* out = act(gate) * up, of rows [gate | up]. act 0: x * sigmoid(x); act 1: gelu, tanh form. */
INLINE void gate_rows(const int type, const int act, const void *x, void *out, int64_t rows, int64_t width,
                      int threads) {
#pragma omp parallel for num_threads(threads) if (rows >= 4) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            v16 g = load(type, x, row * 2 * width + i);
            v16 up = load(type, x, row * 2 * width + width + i);
            v16 inner = act == 0 ? g : 1.5957691216057308f * (g + 0.044715f * g * g * g);
            store(type, out, row * width + i, g / (1.0f + exp16(-inner)) * up);
        }
}

void bh_gate(int64_t type, int64_t act, const void *x, void *out, int64_t rows, int64_t width, int64_t threads) {
    if (type == BF16 && act == 0) gate_rows(BF16, 0, x, out, rows, width, (int)threads);
    if (type == BF16 && act == 1) gate_rows(BF16, 1, x, out, rows, width, (int)threads);
    if (type == F32 && act == 0) gate_rows(F32, 0, x, out, rows, width, (int)threads);
    if (type == F32 && act == 1) gate_rows(F32, 1, x, out, rows, width, (int)threads);
}

/* One head: optional norm with weight, then rotation of halves by cos and sin (Su et al. 2021), into out. */
INLINE void head(const int type, const void *in, int64_t at, void *out, int64_t to, int64_t dim, const float *weight,
                 float eps, const float *cos, const float *sin) {
    float scale = 1.0f;
    if (weight) {
        v16 squares = {0};
        for (int64_t i = 0; i < dim; i += LANES) {
            v16 v = load(type, in, at + i);
            squares += v * v;
        }
        scale = 1.0f / sqrtf(sum(squares) / (float)dim + eps);
    }
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i += LANES) {
        v16 a = load(type, in, at + i) * scale, b = load(type, in, at + half + i) * scale;
        if (weight) {
            a *= load_f32(weight + i);
            b *= load_f32(weight + half + i);
        }
        store(type, out, to + i, a * load_f32(cos + i) - b * load_f32(sin + i));
        store(type, out, to + half + i, b * load_f32(cos + half + i) + a * load_f32(sin + half + i));
    }
}

/* Rows [queries | keys | values] of heads: rotated queries to q, rotated keys and the values to their slots. */
INLINE void rotate_rows(const int type, const void *x, void *q, void *pool, int64_t stride, const int64_t *slots, const float *cos,
                        const float *sin, const float *q_weight, const float *k_weight, int64_t rows, int64_t q_heads,
                        int64_t kv_heads, int64_t dim, float eps, int threads) {
    int64_t width = (q_heads + 2 * kv_heads) * dim;
#pragma omp parallel for num_threads(threads) if (rows >= 4) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *c = cos + row * dim, *s = sin + row * dim;
        for (int64_t h = 0; h < q_heads; h++)
            head(type, x, row * width + h * dim, q, (row * q_heads + h) * dim, dim, q_weight, eps, c, s);
        int64_t slot = slots[row] * stride;
        for (int64_t h = 0; h < kv_heads; h++)
            head(type, x, row * width + (q_heads + h) * dim, pool, slot + h * dim, dim, k_weight, eps, c, s);
        for (int64_t i = 0; i < kv_heads * dim; i += LANES)
            store(type, pool, slot + kv_heads * dim + i, load(type, x, row * width + (q_heads + kv_heads) * dim + i));
    }
}

void bh_rotate(int64_t type, const void *x, void *q, void *pool, int64_t stride, const int64_t *slots, const float *cos,
               const float *sin, const float *q_weight, const float *k_weight, int64_t rows, int64_t q_heads,
               int64_t kv_heads, int64_t dim, double eps, int64_t threads) {
    if (type == BF16)
        rotate_rows(BF16, x, q, pool, stride, slots, cos, sin, q_weight, k_weight, rows, q_heads, kv_heads, dim, (float)eps,
                    (int)threads);
    else
        rotate_rows(F32, x, q, pool, stride, slots, cos, sin, q_weight, k_weight, rows, q_heads, kv_heads, dim, (float)eps,
                    (int)threads);
}
