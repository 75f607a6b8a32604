/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gatherfs.c - main(): picks the command, prints help and the one line of a failure.
 *
 * "gatherfs SOURCE MOUNTPOINT ..." is "gatherfs mount SOURCE MOUNTPOINT ...": that is how
 * mount(8) calls a file system of type fuse.gatherfs.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "tensor/convert.h"
#include "tensor/lowrank.h"
#include "tools/cmd.h"

#ifdef GATHERFS_ZSTD
#define ZSTD "yes"
#else
#define ZSTD "no"
#endif

static const struct gf_cmd *const commands[] = {
    &gf_cmd_mount,  &gf_cmd_umount, &gf_cmd_inspect, &gf_cmd_export,   &gf_cmd_cat,
    &gf_cmd_verify, &gf_cmd_status, &gf_cmd_plan,    &gf_cmd_snapshot, &gf_cmd_doctor,
};

/* ---------------------------------------------------------------- help */

static void print_option(char letter, const char *key, const char *arg, const char *help)
{
    char shown[64], *p = shown;

    snprintf(shown, sizeof(shown), "%s", key);
    while ((p = strchr(p, '_')))
        *p = '-';
    if (letter)
        printf("  -%c, --%s", letter, shown);
    else
        printf("      --%s", shown);
    printf("%s%-*s %s\n", arg ? " " : "", (int)(28 - strlen(shown)) - (arg ? 1 : 0),
           arg ? arg : "", help);
}

static void print_shared_options(void)
{
    printf("\nOptions of every command that reads a SOURCE, as --key VALUE or -o "
           "key=value,...:\n");
    for (const struct gf_option_info *o = gf_option_table; o->key; o++)
        print_option(0, o->key, o->arg, o->help);
    print_option('v', "verbose", NULL, "say more (in the log); twice: everything");
}

static void print_overview(void)
{
    printf("gatherfs shows a sharded training checkpoint as a ready Hugging Face model "
           "directory.\n"
           "\n"
           "usage: gatherfs SOURCE MOUNTPOINT [-o key=value,...]\n"
           "       gatherfs COMMAND ...\n"
           "\n"
           "Commands ('gatherfs COMMAND --help' tells more):\n");
    for (size_t i = 0; i < GF_COUNT(commands); i++)
        printf("  %-8s %-22s %s\n", commands[i]->name, commands[i]->words,
               commands[i]->summary);
    print_shared_options();
    printf(
        "\n"
        "Exit codes: 0 done, 1 the checkpoint has problems, 2 usage or could not do it.\n"
        "\n"
        "Examples:\n"
        "  gatherfs inspect /data/run/ckpt            what is it, is it complete\n"
        "  gatherfs /data/run/ckpt /mnt/model         mount it\n"
        "  gatherfs export /data/run/ckpt /data/model write the same files, without FUSE\n"
        "  gatherfs umount /mnt/model\n");
}

static void print_help(const struct gf_cmd *cmd)
{
    printf("usage: gatherfs %s %s%s\n%s\n", cmd->name, cmd->words,
           cmd->shared ? " [-o key=value,...]" : "", cmd->summary);
    if (cmd->flags[0].key)
        printf("\nOptions:\n");
    for (const struct gf_flag *f = cmd->flags; f->key; f++)
        print_option(f->letter, f->key, f->arg, f->help);
    if (cmd->shared)
        print_shared_options();
    if (cmd->details)
        printf("\n%s", cmd->details);
}

static void print_version(const char *kernels)
{
    printf("gatherfs " GATHERFS_VERSION "\n");
#ifdef GATHERFS_FUSE
    printf("fuse     yes (libfuse " GATHERFS_FUSE ")\n");
#else
    printf("fuse     no\n");
#endif
    printf("mpi      no\n"
           "cuda     no\n"
           "zstd     " ZSTD "\n"
           "kernels  %s\n",
           kernels);
}

/* ---------------------------------------------------------------- which command */

static const struct gf_cmd *find_command(const char *name)
{
    for (size_t i = 0; i < GF_COUNT(commands); i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static int unknown_command(const char *name, struct gf_err *err)
{
    const char *names[GF_COUNT(commands)], *near;

    for (size_t i = 0; i < GF_COUNT(commands); i++)
        names[i] = commands[i]->name;
    near = gf_nearest(name, names, GF_COUNT(commands));
    if (near)
        return gf_fail(err, EINVAL, "unknown command '%s', did you mean '%s'?", name, near);
    return gf_fail(err, EINVAL, "unknown command '%s', see 'gatherfs --help'", name);
}

static int run_command(const struct gf_cmd *cmd, int argc, char **argv, struct gf_err *err)
{
    struct gf_args args;
    int r = gf_args_parse(cmd, argc, argv, &args, err);

    if (r)
        return r;
    if (args.help)
        print_help(cmd);
    else if (args.nwords && !strcmp(args.word[0], "live:"))
        r = gf_fail(err, EINVAL, "no job name behind 'live:'");
    else
        r = cmd->run(&args, err);
    gf_args_done(&args);
    return r;
}

static int dispatch(int argc, char **argv, const char *kernels, struct gf_err *err)
{
    const char *first = argc > 1 ? argv[1] : NULL;
    const struct gf_cmd *cmd;

    if (!first)
        return gf_fail(err, EINVAL, "no command, see 'gatherfs --help'");
    if (!strcmp(first, "--help") || !strcmp(first, "-h") || !strcmp(first, "help")) {
        cmd = argc > 2 ? find_command(argv[2]) : NULL;
        if (argc > 2 && !cmd)
            return unknown_command(argv[2], err);
        if (cmd)
            print_help(cmd);
        else
            print_overview();
        return 0;
    }
    if (!strcmp(first, "--version") || !strcmp(first, "-V")) {
        print_version(kernels);
        return 0;
    }
    cmd = find_command(first);
    if (cmd)
        return run_command(cmd, argc - 2, argv + 2, err);
    if (argc == 2 && !strcmp(first, "live:"))
        return gf_fail(err, EINVAL, "no job name behind 'live:'");
    if (argc == 2 && (!access(first, F_OK) || !strncmp(first, "live:", 5)))
        return gf_fail(err, EINVAL,
                       "MOUNTPOINT is missing: gatherfs '%s' MOUNTPOINT (or a command, see "
                       "'gatherfs --help')",
                       first);
    if (argc == 2 && first[0] != '-')
        return unknown_command(first, err);
    return run_command(&gf_cmd_mount, argc - 1, argv + 1, err);
}

/* Undoes what a caller may have left behind: a file opened as a closed descriptor 0 to 2 would
 * be taken for stdin, stdout or stderr, and without SIGCHLD there is nothing to wait for. */
static void set_up_process(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
    signal(SIGCHLD, SIG_DFL);
}

int main(int argc, char **argv)
{
    struct gf_err err = { 0 };
    int r;

    set_up_process();
    gf_lowrank_init();
    r = dispatch(argc, argv, gf_convert_init(), &err);

    if (!r && (fflush(stdout) || ferror(stdout)))
        r = gf_fail(&err, EIO, "cannot write the output: %s", strerror(errno));
    if (!r)
        return 0;
    fprintf(stderr, "gatherfs: %s\n", err.code ? err.text : strerror(-r));
    return gf_err_exit(-r);
}
