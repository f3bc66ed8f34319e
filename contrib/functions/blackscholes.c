/*
 * blackscholes: prices European options by the formula of Black and Scholes.
 *
 * Symbol: blackscholes. Arguments: an array of struct option; a last part that is no whole option is ignored. Result: an array of
 * float prices, one for each option and in the same order. Options without a price (a negative or zero spot, strike, volatility or
 * time, or no number) get NaN.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* 24 bytes, little-endian as on every machine that we run on. */
struct option {
    float spot;       /* price of the underlying now */
    float strike;     /* price at which it may be bought or sold */
    float rate;       /* riskless interest, per year: 0.05 is 5 % */
    float volatility; /* standard deviation of the return, per year */
    float time;       /* years to expiry */
    uint32_t put;     /* 0: call; anything else: put */
};

uint32_t blackscholes(void *args, uint32_t size, void *result);

static double normal(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

static float price(const struct option *o)
{
    if (!(o->spot > 0 && o->strike > 0 && o->volatility > 0 && o->time > 0))
        return NAN;
    double width = o->volatility * sqrt(o->time);
    double d1 = (log((double)o->spot / o->strike) + (o->rate + 0.5 * o->volatility * o->volatility) * o->time) / width;
    double d2 = d1 - width, later = o->strike * exp(-(double)o->rate * o->time);
    if (o->put)
        return (float)(later * normal(-d2) - o->spot * normal(-d1));
    return (float)(o->spot * normal(d1) - later * normal(d2));
}

uint32_t blackscholes(void *args, uint32_t size, void *result)
{
    uint32_t n = size / sizeof(struct option);
    for (uint32_t i = 0; i < n; i++) {
        struct option o;
        memcpy(&o, (const char *)args + (size_t)i * sizeof o, sizeof o); /* the buffer may start anywhere */
        float p = price(&o);
        memcpy((char *)result + (size_t)i * sizeof p, &p, sizeof p);
    }
    return n * sizeof(float);
}
