/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/lowrank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/convert_int.h"
#include "tensor/lowrank_int.h"

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static float load(enum gf_dtype dtype, const uint8_t *p)
{
    uint16_t half;
    float f;

    if (dtype == GF_F32) {
        memcpy(&f, p, sizeof(f));
        return f;
    }
    memcpy(&half, p, sizeof(half));
    return float_of(dtype == GF_BF16 ? (uint32_t)half << 16 : gf_f32_of_f16(half));
}

static void store(enum gf_dtype dtype, uint8_t *p, float f)
{
    uint16_t half;
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    half = dtype == GF_BF16 ? gf_bf16_of_f32(u) : gf_f16_of_f32(u);
    if (dtype == GF_F32)
        memcpy(p, &f, sizeof(f));
    else
        memcpy(p, &half, sizeof(half));
}

void gf_lowrank_c(const struct gf_lowrank *p, uint64_t col, size_t rows, size_t cols,
                  void *dst, size_t stride)
{
    size_t size = gf_dtype_size(p->dtype);

    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            const float *left = p->left + i * p->rank;
            const float *right = p->right +
                                 (col + j) / GF_LOWRANK_GROUP * p->rank * GF_LOWRANK_GROUP +
                                 (col + j) % GF_LOWRANK_GROUP;
            uint8_t *out = (uint8_t *)dst + (i * stride + j) * size;
            float acc = gf_lowrank_start(p);

            for (size_t k = 0; k < p->rank; k++)
                acc = fmaf(left[k], right[k * GF_LOWRANK_GROUP], acc);
            acc *= p->scale;
            store(p->dtype, out, p->add ? load(p->dtype, out) + acc : acc);
        }
}

static gf_lowrank_fn *best = gf_lowrank_c;

void gf_lowrank_block(const struct gf_lowrank *product, uint64_t col, size_t rows,
                      size_t cols, void *dst, size_t stride)
{
    best(product, col, rows, cols, dst, stride);
}

const char *gf_lowrank_init(void)
{
    const char *wish = getenv("GATHERFS_CPU");
    const struct gf_lowrank_kernel *kernel = gf_lowrank_vector();

    best = gf_lowrank_c;
    if (!kernel->name || (wish && strcmp(wish, "c") == 0))
        return "c";
    best = kernel->fn;
    return kernel->name;
}
