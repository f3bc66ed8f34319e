/* Tests of stress.c and kinds.c: each kind does work for about its time, in any order, and nonsense is refused. */
#include "stress.c"

#include <stdio.h>

static int failed;

static void check(int good, const char *what)
{
    printf("%s - %s\n", good ? "ok" : "not ok", what);
    failed |= !good;
}

int main(void)
{
    for (int round = 0; round < 2; round++)
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            struct order o = {.kind = kind, .milliseconds = 20, .bytes = round ? 1 << 20 : 0};
            uint64_t done = 0, begin = now_ns();
            check(stress(&o, sizeof o, &done) == sizeof done && done > 0 && now_ns() - begin >= 20000000, kind_names[kind]);
        }
    struct order odd = {.kind = KINDS, .milliseconds = 1};
    uint64_t done;
    check(stress(&odd, sizeof odd, &done) == 0, "no such kind");
    check(stress(&odd, 3, &done) == 0, "a part of an order");
    struct state s;
    check(begin(&s, CACHE, 4096) == 0, "a small block");
    uint64_t at = 0, seen = 0;
    do
        at = *(uint64_t *)(s.block + at), seen++;
    while (at != 0 && seen < 1000);
    check(seen == 4096 / 64, "one circle through all lines");
    end(&s);
    return failed;
}
