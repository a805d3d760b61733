/* Attention of single rows over paged keys and values, read where they lie. Softmax is summed as it goes along
   (Milakov and Gimelshein 2018; Dao et al. 2022): nothing of the length of a sequence is ever stored. */
#include "common.h"

#define MAX_GROUP 8
#define MAX_DIM 256
#define BLOCK 16

/* One key head of one sequence and the queries that share it. */
INLINE void one_head(const int type, const int group, const int dim, const void *query, int64_t q_at, const void *pool,
                     int64_t k_at, int64_t v_at, int64_t row_width, const int32_t *pages, int64_t page_size,
                     int64_t first, int64_t stop, float scale, float softcap, const float *sinks, void *out,
                     int64_t o_at) {
    v16 acc[MAX_GROUP][MAX_DIM / LANES];
    float q[MAX_GROUP][MAX_DIM], top[MAX_GROUP], total[MAX_GROUP];
    memset(acc, 0, sizeof acc);
    for (int g = 0; g < group; g++) {
        top[g] = -INFINITY;
        total[g] = 0;
        for (int i = 0; i < dim; i += LANES) {
            v16 v = load(type, query, q_at + g * dim + i) * scale;
            memcpy(&q[g][i], &v, sizeof v);
        }
    }
    const int size = type == BF16 ? 2 : 4;
    for (int64_t slot = first; slot < stop;) {
        int64_t page = slot / page_size, offset = slot % page_size;
        int64_t count = page_size - offset;
        if (count > stop - slot) count = stop - slot;
        if (count > BLOCK) count = BLOCK;
        int64_t row = ((int64_t)pages[page] * page_size + offset) * row_width;
        int64_t next = slot + count;
        /* The values of this block and the keys of the next one are asked for before they are needed. */
        for (int64_t j = 0; j < count; j++)
            for (int i = 0; i < dim * size; i += 64)
                __builtin_prefetch((const char *)pool + (row + j * row_width + v_at) * size + i);
        if (next < stop) {
            int64_t ahead = ((int64_t)pages[next / page_size] * page_size + next % page_size) * row_width;
            int64_t rows = page_size - next % page_size < count ? page_size - next % page_size : count;
            for (int64_t j = 0; j < rows; j++)
                for (int i = 0; i < dim * size; i += 64)
                    __builtin_prefetch((const char *)pool + (ahead + j * row_width + k_at) * size + i);
        }
        v16 scores[MAX_GROUP];
        for (int g = 0; g < group; g++) scores[g] = splat(-INFINITY);
        for (int64_t j = 0; j < count; j++) {
            v16 dots[MAX_GROUP] = {0};

            for (int i = 0; i < dim; i += LANES) {
                v16 k = load(type, pool, row + j * row_width + k_at + i);
                for (int g = 0; g < group; g++) dots[g] += k * load_f32(&q[g][i]);
            }
            for (int g = 0; g < group; g++) scores[g][j] = sum(dots[g]);
        }
        float weights[MAX_GROUP][LANES];
        for (int g = 0; g < group; g++) {
            if (softcap > 0)
                for (int j = 0; j < count; j++) scores[g][j] = tanhf(scores[g][j] / softcap) * softcap;
            float best = top[g];
            for (int j = 0; j < count; j++) best = scores[g][j] > best ? scores[g][j] : best;
            v16 e = exp16(scores[g] - best);
            memcpy(weights[g], &e, sizeof e);
            if (best != top[g]) {
                float shrink = top[g] == -INFINITY ? 0.0f : expf(top[g] - best);
                total[g] *= shrink;
                for (int i = 0; i < dim / LANES; i++) acc[g][i] *= shrink;
                top[g] = best;
            }
            total[g] += sum(e);
        }
        for (int i = 0; i < dim / LANES; i++)
            for (int64_t j = 0; j < count; j++) {
                v16 v = load(type, pool, row + j * row_width + v_at + i * LANES);
                for (int g = 0; g < group; g++) acc[g][i] += v * weights[g][j];
            }
        slot = next;
    }
    for (int g = 0; g < group; g++) {
        float whole = total[g];
        if (sinks) whole += expf(sinks[g] - top[g]);
        for (int i = 0; i < dim / LANES; i++) store(type, out, o_at + g * dim + i * LANES, acc[g][i] / whole);
    }
}

/* Sequence s reads slots firsts[s]..stops[s], page p of it is pages[starts[s] + p], its query is row rows[s]. */
INLINE void all_heads(const int type, const int group, const int dim, const void *q, const void *pool, void *out,
                      const int64_t *rows, const int32_t *pages, const int64_t *starts, const int64_t *firsts,
                      const int64_t *stops, const float *sinks, int64_t sequences, int64_t kv_heads, int64_t page_size,
                      float scale, float softcap, int threads) {
    int64_t width = 2 * kv_heads * dim, tasks = sequences * kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 2)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t s = task / kv_heads, h = task % kv_heads;
        int64_t at = (rows[s] * kv_heads + h) * group * dim;
        one_head(type, group, dim, q, at, pool, h * dim, (kv_heads + h) * dim, width, pages + starts[s], page_size,
                 firsts[s], stops[s], scale, softcap, sinks ? sinks + h * group : NULL, out, at);
    }
}

#define CALL(T, G, D)                                                                                                  \
    if (type == T && group == G && dim == D) {                                                                         \
        all_heads(T, G, D, q, pool, out, rows, pages, starts, firsts, stops, sinks, sequences, kv_heads, page_size,    \
                  (float)scale, (float)softcap, (int)threads);                                                         \
        return 0;                                                                                                      \
    }
#define GROUPS(T, D) CALL(T, 1, D) CALL(T, 2, D) CALL(T, 3, D) CALL(T, 4, D) CALL(T, 5, D) CALL(T, 6, D) CALL(T, 7, D) \
    CALL(T, 8, D)

/* 0, or 1 where this shape has no kernel (asked with sequences = 0 when a model is loaded). */
int64_t bh_decode(int64_t type, int64_t group, int64_t dim, const void *q, const void *pool, void *out,
                  const int64_t *rows, const int32_t *pages, const int64_t *starts, const int64_t *firsts,
                  const int64_t *stops, const float *sinks, int64_t sequences, int64_t kv_heads, int64_t page_size,
                  double scale, double softcap, int64_t threads) {
    GROUPS(BF16, 64) GROUPS(BF16, 128) CALL(BF16, 1, 256) CALL(BF16, 2, 256) CALL(BF16, 4, 256) CALL(BF16, 8, 256)
    GROUPS(BF16, 32) GROUPS(F32, 32) GROUPS(F32, 64) GROUPS(F32, 128)
    return 1;
}
