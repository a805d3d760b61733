/* A whole decoder layer for rows that each stand alone (decoding): what fuse.py does call by call, in one. */
#include "common.h"

void bh_norm(int64_t, void *, void *, const float *, void *, int64_t, int64_t, double, int64_t);
void bh_gate(int64_t, int64_t, const void *, void *, int64_t, int64_t, int64_t);
void bh_rotate(int64_t, const void *, void *, void *, int64_t, const int64_t *, const float *, const float *,
               const float *, const float *, int64_t, int64_t, int64_t, int64_t, double, int64_t);
int64_t bh_decode(int64_t, int64_t, int64_t, const void *, const void *, int64_t, void *, const int64_t *,
                  const int32_t *, const int64_t *, const int64_t *, const int64_t *, const float *, int64_t, int64_t,
                  int64_t, double, double, int64_t);
int64_t bh_product(int64_t, const uint16_t *, const char *, const uint16_t *, const float *, uint16_t *, int64_t,
                   int64_t, int64_t, int64_t);

typedef struct {
    int64_t kind, inputs, outputs;
    const void *weight, *scales, *bias;
} product;

typedef struct {
    product qkv, o, gate_up, down;
    const float *before, *between, *q_norm, *k_norm;
    void *pool;
    int64_t stride, q_heads, kv_heads, dim, act;
    double before_eps, between_eps, head_eps, scale;
} layer;

typedef struct {
    int64_t rows, page_size, threads;
    const int64_t *slots, *order, *starts, *firsts, *stops;
    const int32_t *pages;
    const float *cos, *sin;
    void *normed, *qkv, *q, *attended, *gates, *inner;
} step;

static void times(const product *p, const step *s, const void *x, void *y) {
    bh_product(p->kind, x, p->weight, p->scales, p->bias, y, s->rows, p->inputs, p->outputs, s->threads);
}

void bh_layer(const layer *l, const step *s, void *x) {
    int64_t rows = s->rows, hidden = l->qkv.inputs, threads = s->threads;
    bh_norm(BF16, x, NULL, l->before, s->normed, rows, hidden, l->before_eps, threads);
    times(&l->qkv, s, s->normed, s->qkv);
    bh_rotate(BF16, s->qkv, s->q, l->pool, l->stride, s->slots, s->cos, s->sin, l->q_norm, l->k_norm, rows, l->q_heads,
              l->kv_heads, l->dim, l->head_eps, threads);
    bh_decode(BF16, l->q_heads / l->kv_heads, l->dim, s->q, l->pool, l->stride, s->attended, s->order, s->pages,
              s->starts, s->firsts, s->stops, NULL, rows, l->kv_heads, s->page_size, l->scale, 0.0, threads);
    times(&l->o, s, s->attended, s->inner);
    bh_norm(BF16, s->inner, x, l->between, s->normed, rows, hidden, l->between_eps, threads);
    times(&l->gate_up, s, s->normed, s->gates);
    bh_gate(BF16, l->act, s->gates, s->inner, rows, l->down.inputs, threads);
    times(&l->down, s, s->inner, s->normed);
    for (int64_t i = 0; i < rows * hidden; i += LANES)
        store(BF16, x, i, load(BF16, x, i) + load(BF16, s->normed, i));
}
