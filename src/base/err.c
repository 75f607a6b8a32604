/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Names come from untrusted files: a message stays one printable line whatever they hold. */
static void make_printable(char *text)
{
    bool utf8 = gf_utf8_valid((const uint8_t *)text, strlen(text));

    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f || (!utf8 && (*text & 0x80)))
            *text = '?';
}

int gf_fail(struct gf_err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return -code;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    make_printable(err->text);
    return -code;
}

int gf_wrap(struct gf_err *err, const char *fmt, ...)
{
    char old[sizeof(err->text)];
    va_list ap;
    int n;

    if (!err)
        return -EIO;
    memcpy(old, err->text, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(err->text))
        n += snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %.400s", old);
    make_printable(err->text);
    return -err->code;
}

int gf_nomem(struct gf_err *err)
{
    return gf_fail(err, ENOMEM, "out of memory");
}

int gf_err_exit(int code)
{
    return code == GF_EBAD || code == GF_EINCOMPLETE || code == EIO || code == ESTALE ? 1
                                                                                      : 2;
}
