/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/dtype.h"

#include <assert.h>
#include <string.h>

#include "base/math.h"

static const struct gf_dtype_info table[GF_NDTYPES] = {
    [GF_BOOL] = { "BOOL", "bool", "BoolStorage", 8, false },
    [GF_F4] = { "F4", "float4_e2m1fn_x2", NULL, 4, false },
    [GF_F6_E2M3] = { "F6_E2M3", NULL, NULL, 6, false },
    [GF_F6_E3M2] = { "F6_E3M2", NULL, NULL, 6, false },
    [GF_U8] = { "U8", "uint8", "ByteStorage", 8, false },
    [GF_I8] = { "I8", "int8", "CharStorage", 8, false },
    [GF_F8_E5M2] = { "F8_E5M2", "float8_e5m2", NULL, 8, false },
    [GF_F8_E4M3] = { "F8_E4M3", "float8_e4m3fn", NULL, 8, false },
    [GF_F8_E8M0] = { "F8_E8M0", "float8_e8m0fnu", NULL, 8, false },
    [GF_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", "float8_e4m3fnuz", NULL, 8, false },
    [GF_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", "float8_e5m2fnuz", NULL, 8, false },
    [GF_I16] = { "I16", "int16", "ShortStorage", 16, false },
    [GF_U16] = { "U16", "uint16", NULL, 16, false },
    [GF_F16] = { "F16", "float16", "HalfStorage", 16, true },
    [GF_BF16] = { "BF16", "bfloat16", "BFloat16Storage", 16, true },
    [GF_I32] = { "I32", "int32", "IntStorage", 32, false },
    [GF_U32] = { "U32", "uint32", NULL, 32, false },
    [GF_F32] = { "F32", "float32", "FloatStorage", 32, true },
    [GF_C64] = { "C64", "complex64", "ComplexFloatStorage", 64, false },
    [GF_F64] = { "F64", "float64", "DoubleStorage", 64, true },
    [GF_I64] = { "I64", "int64", "LongStorage", 64, false },
    [GF_U64] = { "U64", "uint64", NULL, 64, false },
};

const struct gf_dtype_info *gf_dtype_info(enum gf_dtype dtype)
{
    assert((unsigned)dtype < GF_NDTYPES);
    return &table[dtype];
}

size_t gf_dtype_size(enum gf_dtype dtype)
{
    assert(gf_dtype_info(dtype)->bits % 8 == 0);
    return gf_dtype_info(dtype)->bits / 8;
}

bool gf_dtype_nbytes(enum gf_dtype dtype, uint64_t n, uint64_t *ret)
{
    uint64_t bits;

    if (gf_mul(n, gf_dtype_info(dtype)->bits, &bits) || bits % 8)
        return true;
    *ret = bits / 8;
    return false;
}

bool gf_dtype_by_safetensors(const char *name, enum gf_dtype *ret)
{
    for (unsigned i = 0; i < GF_NDTYPES; i++)
        if (strcmp(table[i].safetensors, name) == 0)
            return *ret = (enum gf_dtype)i, true;
    return false;
}

bool gf_dtype_by_torch(const char *name, enum gf_dtype *ret)
{
    for (unsigned i = 0; i < GF_NDTYPES; i++)
        if (table[i].torch && strcmp(table[i].torch, name) == 0)
            return *ret = (enum gf_dtype)i, true;
    return false;
}

bool gf_dtype_by_storage(const char *name, enum gf_dtype *ret)
{
    for (unsigned i = 0; i < GF_NDTYPES; i++)
        if (table[i].storage && strcmp(table[i].storage, name) == 0)
            return *ret = (enum gf_dtype)i, true;
    return false;
}
