/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - runs a fuzz target on files and on all files of directories, without a fuzz
 * engine: so the corpus is an ordinary test. Fails if there was nothing to run.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t replayed;

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *bytes = NULL;
    size_t n = 0, got;

    if (!f) {
        perror(path);
        return 1;
    }
    do {
        uint8_t *more = realloc(bytes, n + 65536);

        if (!more)
            abort();
        bytes = more;
        got = fread(bytes + n, 1, 65536, f);
        n += got;
    } while (got);
    fclose(f);
    /* Exactly as long as the input, so that a read past it is seen by the sanitizer. */
    bytes = realloc(bytes, n ? n : 1);
    LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
    replayed++;
    return 0;
}

static int replay_directory(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort), failed = 0;

    if (n < 0) {
        perror(path);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        char *file;

        if (names[i]->d_name[0] != '.') {
            if (asprintf(&file, "%s/%s", path, names[i]->d_name) < 0)
                abort();
            failed |= replay_file(file);
            free(file);
        }
        free(names[i]);
    }
    free(names);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
            failed |= replay_directory(argv[i]);
        else
            failed |= replay_file(argv[i]);
    }
    printf("%zu inputs\n", replayed);
    return failed || !replayed;
}
