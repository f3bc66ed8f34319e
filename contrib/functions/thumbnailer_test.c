/* Tests of thumbnailer.c: images made here, broken in every way, and their thumbnails decoded again. */
#include "thumbnailer.c"

static int failed;

static void check(int good, const char *what)
{
    printf("%s - %s\n", good ? "ok" : "not ok", what);
    failed |= !good;
}

/* Makes a JPEG: a ramp of red over x and of green over y. */
static unsigned char *picture(unsigned w, unsigned h, J_COLOR_SPACE space, int progressive, unsigned long *size)
{
    struct jpeg_error_mgr e;
    struct jpeg_compress_struct c = {.err = jpeg_std_error(&e)};
    unsigned char *out = NULL;
    int n = space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK ? 4 : 3;
    unsigned char *row = calloc(w, n);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, size);
    c.image_width = w;
    c.image_height = h;
    c.input_components = n;
    c.in_color_space = space;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 95, TRUE);
    if (progressive)
        jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    for (unsigned y = 0; y < h; y++) {
        for (unsigned x = 0; x < w; x++) {
            row[x * n] = (unsigned char)(255ul * x / w);
            if (n > 1)
                row[x * n + 1] = (unsigned char)(255ul * y / h);
            if (n == 4)
                row[x * n + 3] = 255;
        }
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(row);
    return out;
}

/* Decodes a thumbnail, compares it with the ramp, and says whether size and content are right. */
static int is_ramp(unsigned char *data, uint32_t size, unsigned w, unsigned h)
{
    struct jpeg_error_mgr e;
    struct jpeg_decompress_struct d = {.err = jpeg_std_error(&e)};
    double off = 0;
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, data, size);
    jpeg_read_header(&d, TRUE);
    jpeg_start_decompress(&d);
    int good = d.output_width == w && d.output_height == h;
    unsigned char *row = calloc(d.output_width, d.output_components);
    for (unsigned y = 0; y < d.output_height; y++) {
        jpeg_read_scanlines(&d, &row, 1);
        for (unsigned x = 0; x < d.output_width; x++) {
            off += fabs(row[x * d.output_components] - 255 * (x + .5) / w);
            if (d.output_components > 1)
                off += fabs(row[x * d.output_components + 1] - 255 * (y + .5) / h);
        }
    }
    off /= (double)d.output_width * d.output_height;
    if (!good || off > 6)
        printf("# %ux%u, off by %.1f\n", d.output_width, d.output_height, off);
    jpeg_finish_decompress(&d);
    jpeg_destroy_decompress(&d);
    free(row);
    return good && off < 6;
}

static unsigned char result[THUMBNAIL_MAX];

static void sizes(void)
{
    static const struct {
        unsigned w, h, tw, th;
        J_COLOR_SPACE space;
        int progressive;
        const char *name;
    } t[] = {
        {800, 600, 200, 150, JCS_RGB, 0, "landscape"},     {600, 800, 150, 200, JCS_RGB, 0, "portrait"},
        {1777, 1333, 200, 150, JCS_RGB, 0, "odd sizes"},   {4000, 3000, 200, 150, JCS_RGB, 0, "large"},
        {801, 333, 200, 83, JCS_RGB, 1, "progressive"},    {640, 480, 200, 150, JCS_GRAYSCALE, 0, "grey"},
        {640, 480, 200, 150, JCS_CMYK, 0, "CMYK"},         {200, 200, 200, 200, JCS_RGB, 0, "fits already"},
        {201, 201, 200, 200, JCS_RGB, 0, "just too large"}, {120, 40, 120, 40, JCS_RGB, 0, "small"},
        {5000, 1, 200, 1, JCS_GRAYSCALE, 0, "a line"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        unsigned long n = 0;
        unsigned char *in = picture(t[i].w, t[i].h, t[i].space, t[i].progressive, &n);
        uint32_t got = thumbnailer(in, (uint32_t)n, result);
        check(got > 0 && (t[i].th == 1 || is_ramp(result, got, t[i].tw, t[i].th)), t[i].name);
        free(in);
    }
}

static void bad_input(void)
{
    unsigned long n = 0;
    unsigned char *in = picture(300, 300, JCS_RGB, 0, &n);
    int quiet = 1;
    check(thumbnailer(in, 0, result) == 0, "no bytes");
    check(thumbnailer("GIF89a, no JPEG", 15, result) == 0, "another format");
    for (unsigned long cut = 1; cut + 2 < n; cut += 37) {
        unsigned char *part = malloc(cut); /* exactly as long, so that reading past it is seen */
        memcpy(part, in, cut);
        quiet &= thumbnailer(part, (uint32_t)cut, result) == 0;
        free(part);
    }
    check(quiet, "cut short anywhere");
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        unsigned char *copy = malloc(n);
        memcpy(copy, in, n);
        for (int k = 0; k < 8; k++) {
            seed = seed * 1664525u + 1013904223u;
            copy[(seed >> 8) % (round % 2 ? n : 600)] ^= (unsigned char)(seed >> 24);
        }
        quiet &= thumbnailer(copy, (uint32_t)n, result) <= THUMBNAIL_MAX;
        free(copy);
    }
    check(quiet, "flipped bits");
    free(in);
}

int main(void)
{
    sizes();
    bad_input();
    return failed;
}
