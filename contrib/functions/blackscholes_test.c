/* Tests of blackscholes.c: textbook values, put-call parity, and arguments that make no sense. */
#include "blackscholes.c"

#include <stdio.h>
#include <stdlib.h>

static int failed;

static void check(int good, const char *what)
{
    printf("%s - %s\n", good ? "ok" : "not ok", what);
    failed |= !good;
}

int main(void)
{
    /* Hull, Options, Futures and Other Derivatives, example 15.6: 4.76 and 0.81. */
    struct option hull[2] = {{42, 40, 0.1f, 0.2f, 0.5f, 0}, {42, 40, 0.1f, 0.2f, 0.5f, 1}};
    float p[2] = {0, 0};
    check(blackscholes(hull, sizeof hull, p) == sizeof p, "two prices");
    check(fabsf(p[0] - 4.759f) < 0.001f && fabsf(p[1] - 0.808f) < 0.001f, "a textbook's values");

    int parity = 1;
    for (int i = 1; i < 1000; i++) {
        struct option o[2] = {{(float)i, 300, 0.03f, 0.01f * (float)(i % 90 + 1), 0.01f * (float)i, 0}};
        o[1] = o[0];
        o[1].put = 7;
        blackscholes(o, sizeof o, p);
        double want = o[0].spot - o[0].strike * exp(-(double)o[0].rate * o[0].time);
        parity &= fabs(p[0] - p[1] - want) < 1e-3 && p[0] > -1e-3 && p[1] > -1e-3;
    }
    check(parity, "put-call parity");

    struct option odd[5] = {{0, 1, 0, 1, 1, 0}, {1, -1, 0, 1, 1, 0}, {1, 1, 0, 0, 1, 0}, {1, 1, 0, 1, 0, 0}, {NAN, 1, 0, 1, 1, 0}};
    float q[5];
    int all = blackscholes(odd, sizeof odd, q) == sizeof q;
    for (int i = 0; i < 5; i++)
        all &= isnan(q[i]) != 0;
    check(all, "no price is NaN");

    check(blackscholes(hull, 0, p) == 0 && blackscholes(hull, 23, p) == 0 && blackscholes(hull, 47, p) == 4, "parts of an option");
    char *crooked = malloc(sizeof hull + 1);
    memcpy(crooked + 1, hull, sizeof hull);
    check(blackscholes(crooked + 1, sizeof hull, p) == 8 && fabsf(p[0] - 4.759f) < 0.001f, "an odd address");
    free(crooked);
    return failed;
}
