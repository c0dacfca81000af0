/* plain_train.h: rounds of training as the contract and the training design word them, on plain_model.h: AdamW, the
 * statistics, the outer step. It shares with the tree only at_lr, at_data_sample and the initial weights. For
 * training_test.c only. */
#ifndef ATOLL_PLAIN_TRAIN_H
#define ATOLL_PLAIN_TRAIN_H

#include "plain_model.h"
#include "train/local.h"

/* ---- (tensor, slot) blocks ---- */

struct slot_view {
    long rows, cols, first; /* element (i,j) of the slot is element first + i * tensor cols + j of the tensor */
};
static struct slot_view slot_of(const struct plain_tensor *t, int s)
{
    if (t->by_cols) return (struct slot_view){t->rows, t->cols / t->slots, s * (t->cols / t->slots)};
    return (struct slot_view){t->rows / t->slots, t->cols, s * (t->rows / t->slots) * t->cols};
}

static double norm_squared(const struct plain *p)
{
    double total = 0;
    for (int i = 0; i < p->tensors; i++) {
        double part[8] = {0};
        for (int s = 0; s < p->t[i].slots; s++) {
            struct slot_view b = slot_of(&p->t[i], s);
            for (long r = 0; r < b.rows; r++) {
                double l[16] = {0};
                for (long j = 0; j < b.cols; j++) {
                    double x = (double)p->t[i].g[b.first + r * p->t[i].cols + j];
                    l[j % 16] = fma(x, x, l[j % 16]);
                }
                part[s] += join16_wide(l);
            }
        }
        total += tree_sum64(part, p->t[i].slots);
    }
    return total;
}

static void adamw(struct plain *p, const struct at_train_config *c, uint32_t round, uint32_t k)
{
    double n = sqrt(norm_squared(p)), b1 = 1, b2 = 1;
    for (uint32_t i = 0; i < k; i++) {
        b1 *= c->beta1;
        b2 *= c->beta2;
    }
    float clip = n > c->clip_norm ? (float)(c->clip_norm / n) : 1, lr = at_lr(c, (uint64_t)round * c->steps + k - 1);
    float fix1 = round == 0 ? (float)(1 / (1 - b1)) : 1, fix2 = round == 0 ? (float)(1 / (1 - b2)) : 1;
    for (int i = 0; i < p->tensors; i++) {
        struct plain_tensor *t = &p->t[i];
        for (long e = 0; e < t->rows * t->cols; e++) {
            float g = t->g[e] * clip;
            t->m[e] = fmaf((float)c->beta1, t->m[e], (float)(1 - c->beta1) * g);
            t->v[e] = fmaf((float)c->beta2, t->v[e], ((float)(1 - c->beta2) * g) * g);
            float u = (t->m[e] * fix1) / (sqrtf(t->v[e] * fix2) + (float)c->adam_eps);
            u = fmaf(t->gain ? 0.0f : (float)c->weight_decay, t->w[e], u);
            t->w[e] = fmaf(-lr, u, t->w[e]);
        }
    }
}

/* 20-training.md, "Rounds start from public state". */
static void moments_start(struct plain_tensor *t, uint32_t round)
{
    long n = t->rows * t->cols;
    memset(t->m, 0, (size_t)n * sizeof(float));
    memset(t->v, 0, (size_t)n * sizeof(float));
    if (round == 0) return;
    if (t->gain) memcpy(t->v, t->stats, (size_t)n * sizeof(float));
    const float *row = t->stats;
    for (int s = 0; !t->gain && s < t->slots; s++) {
        struct slot_view b = slot_of(t, s);
        double sum = 0;
        for (long i = 0; i < b.rows; i++) sum += (double)row[i];
        double mean = sum / (double)b.rows;
        for (long i = 0; i < b.rows; i++)
            for (long j = 0; j < b.cols; j++)
                t->v[b.first + i * t->cols + j] = (mean > 0 ? (float)((double)row[i] / mean) : 0) * row[b.rows + j];
        row += b.rows + b.cols;
    }
}

static void moments_end(struct plain_tensor *t)
{
    if (t->gain) memcpy(t->made, t->v, (size_t)t->cols * sizeof(float));
    float *row = t->made;
    for (int s = 0; !t->gain && s < t->slots; s++) {
        struct slot_view b = slot_of(t, s);
        for (long i = 0; i < b.rows; i++) {
            double l[16] = {0};
            for (long j = 0; j < b.cols; j++) l[j % 16] += (double)t->v[b.first + i * t->cols + j];
            row[i] = (float)(join16_wide(l) / (double)b.cols);
        }
        for (long j = 0; j < b.cols; j++) {
            double sum = 0;
            for (long i = 0; i < b.rows; i++) sum += (double)t->v[b.first + i * t->cols + j];
            row[b.rows + j] = (float)(sum / (double)b.rows);
        }
        row += b.rows + b.cols;
    }
}

static long stats_len(const struct plain_tensor *t)
{
    struct slot_view b = slot_of(t, 0);
    return t->gain ? t->cols : t->slots * (b.rows + b.cols);
}

/* ---- a round ---- */

static void replica(struct plain *p, const struct at_train_config *c, const struct at_data *data, uint32_t round,
                    uint64_t sample)
{
    float inv = (float)(1.0 / ((double)c->batch * (double)p->T));
    int32_t *token = malloc((size_t)p->T * sizeof *token), *target = malloc((size_t)p->T * sizeof *target);
    for (int i = 0; i < p->tensors; i++) {
        memcpy(p->t[i].w, p->t[i].theta, (size_t)(p->t[i].rows * p->t[i].cols) * sizeof(float));
        moments_start(&p->t[i], round);
    }
    for (uint32_t k = 1; k <= c->steps; k++) {
        double loss = 0;
        for (int i = 0; i < p->tensors; i++)
            memset(p->t[i].g, 0, (size_t)(p->t[i].rows * p->t[i].cols) * sizeof(float));
        memset(p->head_g, 0, (size_t)(p->V * p->d) * sizeof(float));
        for (uint32_t b = 0; b < c->batch; b++) {
            at_data_sample(data, sample++, token, target);
            sequence_gradient(p, token, target, inv, &loss);
        }
        for (long i = 0; p->c->tied && i < p->V * p->d; i++) p->t[0].g[i] += p->head_g[i];
        adamw(p, c, round, k);
    }
    for (int i = 0; i < p->tensors; i++) moments_end(&p->t[i]);
    free(token);
    free(target);
}

/* Replicas of equal weight; rule 11. */
static void plain_round(struct plain *p, const struct at_train_config *c, const struct at_data *data, uint32_t round,
                        int replicas)
{
    float w = (float)(1.0 / (double)replicas);
    for (int i = 0; i < p->tensors; i++) {
        memset(p->t[i].sum_d, 0, (size_t)(p->t[i].rows * p->t[i].cols) * sizeof(float));
        memset(p->t[i].sum_s, 0, (size_t)stats_len(&p->t[i]) * sizeof(float));
    }
    for (int r = 0; r < replicas; r++) {
        replica(p, c, data, round, ((uint64_t)round * (uint64_t)replicas + (uint64_t)r) * c->steps * c->batch);
        for (int i = 0; i < p->tensors; i++) {
            struct plain_tensor *t = &p->t[i];
            for (long e = 0; e < t->rows * t->cols; e++) t->sum_d[e] = fmaf(w, t->theta[e] - t->w[e], t->sum_d[e]);
            for (long e = 0; e < stats_len(t); e++) t->sum_s[e] = fmaf(w, t->made[e], t->sum_s[e]);
        }
    }
    for (int i = 0; i < p->tensors; i++) {
        struct plain_tensor *t = &p->t[i];
        for (long e = 0; e < t->rows * t->cols; e++) t->theta[e] = fmaf(-1.0f, t->sum_d[e], t->theta[e]);
        memcpy(t->stats, t->sum_s, (size_t)stats_len(t) * sizeof(float));
    }
}

#endif
