/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The expected numbers are from another calculation, with 40 digits: the optimum in closed form
 * (Lambert's W) and by root finding, the lost work by quadrature.
 */
#include "tests/unit/t.h"

#include <math.h>

#include "base/math.h"
#include "snapshot/plan.h"

static void near(double found, double wanted, double relative)
{
    if (!(fabs(found - wanted) <= relative * fabs(wanted)))
        fail_msg("found %.15g, wanted %.15g", found, wanted);
}

static void the_optimum_is_right_for_any_save_time(void **state)
{
    static const struct {
        double save, mtbf, exact, daly, young;
    } rows[] = {
        { 90, 43200, 2728.87354667692, 2728.87075788152, 2788.54800926934 },
        { 0.4, 43200, 185.636629635392, 185.636629580508, 185.903200617956 },
        { 600, 3600, 1699.23089306899, 1697.70597805564, 2078.46096908265 },
        { 3600, 3600, 3029.06037757306, 2974.01153701776, 5091.16882454314 },
        { 10000, 3600, 3515.70464841848, 3600, 8485.28137423857 },
        { 1e-3, 1e7, 141.420689571429, 141.420689571429, 141.42135623731 },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(rows); i++) {
        struct gf_plan_in in = { .step = 1, .save = rows[i].save, .mtbf = rows[i].mtbf };
        struct gf_plan plan;

        GF_OK(gf_plan_interval(&in, &plan, &t_err));
        near(plan.exact, rows[i].exact, 1e-9);
        near(plan.daly, rows[i].daly, 1e-12);
        near(plan.young, rows[i].young, 1e-12);
    }
}

static void costs_are_those_of_the_model(void **state)
{
    static const struct {
        double compute, save, mtbf, restart, write;
        double overhead, lost_each, lost_day, restart_day;
    } rows[] = {
        { 2400, 90, 43200, 300, 0, 0.0754253792186037, 1233.0405927405, 2449.01494804712,
          597.921480836696 },
        { 180, 0.4, 43200, 300, 90, 0.0134087713032391, 180.137221931826, 357.042514182224,
          596.686985668975 },
        { 3600, 600, 3600, 600, 0, 1.61230748181753, 1700.63946584743, 34549.445483222,
          13263.9789694509 },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(rows); i++) {
        struct gf_plan_in in = { .step = rows[i].compute / 10,
                                 .save = rows[i].save,
                                 .write = rows[i].write,
                                 .mtbf = rows[i].mtbf,
                                 .restart = rows[i].restart,
                                 .steps = 1000 };
        struct gf_plan_row row;

        gf_plan_at(&in, 10, &row);
        near(row.overhead, rows[i].overhead, 1e-10);
        near(row.saving + row.failing, row.overhead, 1e-15);
        near(row.lost_each, rows[i].lost_each, 1e-10);
        near(row.lost_day, rows[i].lost_day, 1e-10);
        near(row.restart_day, rows[i].restart_day, 1e-10);
        assert_int_equal(row.checkpoints, 100);
        near(row.total, 100 * rows[i].compute * (1 + row.overhead), 1e-12);
        near(row.failures, row.total / in.mtbf, 1e-15);
    }
}

static void tiny_costs_do_not_drown_in_rounding(void **state)
{
    struct gf_plan_in in = { .step = 1e-3, .save = 1e-9, .mtbf = 1e12 };
    struct gf_plan_row row;

    (void)state;
    gf_plan_at(&in, 1, &row);
    near(row.lost_each, (1e-3 + 1e-9) / 2, 1e-9);
    near(row.saving, 1e-6, 1e-9);
    near(row.failing, 5e-16, 1e-3);
}

static void no_number_of_steps_is_cheaper(void **state)
{
    static const struct gf_plan_in rows[] = {
        { .step = 0.8, .save = 90, .mtbf = 43200 },
        { .step = 500, .save = 90, .mtbf = 43200, .restart = 300 },
        { .step = 60, .save = 0.5, .mtbf = 600, .write = 40 },
        { .step = 100, .save = 3600, .mtbf = 3600 },
        { .step = 5000, .save = 1, .mtbf = 3600 }, /* one step is longer than the best */
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(rows); i++) {
        struct gf_plan_row row;
        struct gf_plan plan;

        GF_OK(gf_plan_interval(&rows[i], &plan, &t_err));
        for (uint64_t steps = 1; steps < 5000; steps++) {
            gf_plan_at(&rows[i], steps, &row);
            if (row.overhead < plan.best.overhead && row.compute >= rows[i].write)
                fail_msg("row %zu: %llu steps cost %.9g, not %.9g with %llu", i,
                         (unsigned long long)steps, row.overhead, plan.best.overhead,
                         (unsigned long long)plan.best.steps);
        }
    }
}

static void a_job_of_known_length_is_divided_at_least_cost(void **state)
{
    static const uint64_t lengths[] = { 1, 2, 50, 99, 100, 101, 143, 150, 200, 1003 };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(lengths); i++) {
        struct gf_plan_in in = {
            .step = 27, .save = 90, .mtbf = 43200, .restart = 60, .steps = lengths[i]
        };
        struct gf_plan_row row;
        struct gf_plan plan;

        GF_OK(gf_plan_interval(&in, &plan, &t_err));
        assert_in_range(plan.best.steps, 1, lengths[i]);
        for (uint64_t steps = 1; steps <= lengths[i]; steps++) {
            gf_plan_at(&in, steps, &row);
            if (row.total < plan.best.total * (1 - 1e-4))
                fail_msg("of %llu, %llu steps cost %.9g, not %.9g with %llu",
                         (unsigned long long)lengths[i], (unsigned long long)steps,
                         row.total, plan.best.total, (unsigned long long)plan.best.steps);
        }
    }
}

static void the_last_interval_may_be_short(void **state)
{
    struct gf_plan_in in = { .step = 10, .save = 90, .mtbf = 1e9, .steps = 25 };
    struct gf_plan_row row;

    (void)state;
    gf_plan_at(&in, 10, &row);
    assert_int_equal(row.checkpoints, 3);
    near(row.total, 250 + 3 * 90, 1e-5); /* next to no failures */
}

static void a_snapshot_waits_for_the_one_before(void **state)
{
    struct gf_plan_in in = { .step = 1, .save = 0.1, .write = 1000, .mtbf = 43200 };
    struct gf_plan plan;

    (void)state;
    GF_OK(gf_plan_interval(&in, &plan, &t_err));
    assert_true(plan.by_write);
    assert_int_equal(plan.best.steps, 1000);
    in.write = 80;
    GF_OK(gf_plan_interval(&in, &plan, &t_err));
    assert_false(plan.by_write);
    assert_in_range(plan.best.steps, 92, 93);
}

static void senseless_inputs_are_refused(void **state)
{
    static const struct {
        struct gf_plan_in in;
        int code;
        const char *words;
    } rows[] = {
        { { .step = 0, .save = 1, .mtbf = 1 }, EINVAL, "step time: 0 s" },
        { { .step = 1, .save = -1, .mtbf = 1 }, EINVAL, "save time: -1 s" },
        { { .step = 1, .save = 1, .mtbf = 0 }, EINVAL, "mtbf" },
        { { .step = 1, .save = 1, .mtbf = INFINITY }, EINVAL, "mtbf: inf" },
        { { .step = NAN, .save = 1, .mtbf = 1 }, EINVAL, "step time: nan" },
        { { .step = 1, .save = 1, .mtbf = 9, .restart = -1 }, EINVAL, "restart time" },
        { { .step = 1, .save = 1, .mtbf = 9, .write = NAN }, EINVAL, "write time" },
        { { .step = 1e6, .save = 1, .mtbf = 60 }, ERANGE, "leaves no room" },
        { { .step = 1, .save = 1, .mtbf = 60, .restart = 1e6 }, ERANGE, "1e+06 s" },
    };
    struct gf_plan plan;

    (void)state;
    for (size_t i = 0; i < GF_COUNT(rows); i++)
        GF_FAILS(gf_plan_interval(&rows[i].in, &plan, &t_err), rows[i].code, rows[i].words);
}

static void extremes_end(void **state)
{
    struct gf_plan_in in = { .step = 1e-300, .save = 1e-3, .mtbf = 1e300 };
    struct gf_plan plan;

    (void)state;
    GF_OK(gf_plan_interval(&in, &plan, &t_err));
    in = (struct gf_plan_in){ .step = 1e-9, .save = 1e-9, .mtbf = 1e15, .steps = 7 };
    GF_OK(gf_plan_interval(&in, &plan, &t_err));
    assert_int_equal(plan.best.steps, 7);
    in = (struct gf_plan_in){ .step = 1e-300, .save = 1, .mtbf = 10, .write = 9 };
    GF_OK(gf_plan_interval(&in, &plan, &t_err));
}

static void times_have_units(void **state)
{
    static const struct {
        const char *text;
        double seconds;
    } good[] = { { "0.8s", 0.8 },  { "250ms", 0.25 }, { "12m", 720 },
                 { "12min", 720 }, { "36h", 129600 }, { "30d", 2592000 },
                 { "90", 90 },     { "0", 0 },        { "1.", 1 } };
    static const char *const bad[] = { "",      "s",   "-1s", "1x",     "1e5",
                                       "0x10",  "inf", "nan", "1.2.3s", "1 s",
                                       "1h30m", ".5s", "+1" };
    double seconds;

    (void)state;
    for (size_t i = 0; i < GF_COUNT(good); i++) {
        assert_int_equal(gf_parse_time(good[i].text, &seconds), 0);
        near(seconds, good[i].seconds, 1e-15);
    }
    seconds = 7;
    for (size_t i = 0; i < GF_COUNT(bad); i++)
        if (gf_parse_time(bad[i], &seconds) != -EINVAL)
            fail_msg("'%s' is taken for %g s", bad[i], seconds);
    assert_true(seconds == 7);
}

static void times_are_written_in_a_fitting_unit(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } rows[] = { { 0, "0 s" },          { 0.25, "250.0 ms" }, { 90, "90.0 s" },
                 { 720, "12.0 min" },   { 7200, "2.0 h" },    { 259200, "3.0 d" },
                 { INFINITY, "never" }, { NAN, "never" },     { 1e18, "never" } };
    char buf[GF_TIME_TEXT];

    (void)state;
    for (size_t i = 0; i < GF_COUNT(rows); i++)
        assert_string_equal(gf_time_text(rows[i].seconds, buf), rows[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_optimum_is_right_for_any_save_time),
        cmocka_unit_test(costs_are_those_of_the_model),
        cmocka_unit_test(tiny_costs_do_not_drown_in_rounding),
        cmocka_unit_test(no_number_of_steps_is_cheaper),
        cmocka_unit_test(a_job_of_known_length_is_divided_at_least_cost),
        cmocka_unit_test(the_last_interval_may_be_short),
        cmocka_unit_test(a_snapshot_waits_for_the_one_before),
        cmocka_unit_test(senseless_inputs_are_refused),
        cmocka_unit_test(extremes_end),
        cmocka_unit_test(times_have_units),
        cmocka_unit_test(times_are_written_in_a_fitting_unit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
