/*
 * thumbnailer: a JPEG image in, a JPEG that fits 200 x 200 out, the proportions kept (SeBS 210.thumbnailer).
 *
 * Symbol: thumbnailer. Arguments: the bytes of a JPEG file: grey, colour or CMYK, baseline or progressive. Result: the bytes of
 * a JPEG file, at most THUMBNAIL_MAX of them. An image that already fits keeps its size; none is made larger. The orientation
 * tag is not looked at. An empty result means that the arguments are not a whole JPEG image.
 *
 * The image is read row by row: only progressive images need memory in proportion to their size, 512 MiB at most.
 */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#define SIDE 200
#define QUALITY 90
#define THUMBNAIL_MAX (SIDE * SIDE * 4)

uint32_t thumbnailer(void *args, uint32_t size, void *result);

/* What must be freed however the work ends; libjpeg's errors jump out of it. */
struct work {
    struct jpeg_error_mgr errors; /* first, so that libjpeg's pointer to it is one to the work */
    jmp_buf out;
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct to;
    unsigned width, height; /* of the thumbnail */
    int channels;           /* of the thumbnail: 1 or 3 */
    unsigned char *row;     /* one row as it is read */
    unsigned char *pixels;  /* the thumbnail */
    float *across;          /* one row, averaged over x */
    float *sum;             /* a row of the thumbnail while it is summed over y */
    unsigned char *encoded;
    unsigned long encoded_size;
};

static void fail(j_common_ptr c) { longjmp(((struct work *)c->err)->out, 1); }

/* Data that ends early would come out as grey; other irregularities that libjpeg can read past are let through. Nothing is printed. */
static void note(j_common_ptr c, int level)
{
    if (level < 0 && (c->err->msg_code == JWRN_JPEG_EOF || c->err->msg_code == JWRN_HIT_MARKER))
        fail(c);
}

static unsigned scaled(unsigned n, double by)
{
    double s = floor(n * by + 0.5);
    return s < 1 ? 1 : s > SIDE ? SIDE : (unsigned)s;
}

/* Lets libjpeg shrink while it decodes, which is cheap, as long as twice the wanted size is left to be averaged. */
static void choose_size(struct work *w)
{
    struct jpeg_decompress_struct *in = &w->in;
    double by = fmin(1, fmin((double)SIDE / in->image_width, (double)SIDE / in->image_height));
    w->width = scaled(in->image_width, by);
    w->height = scaled(in->image_height, by);
    in->scale_num = in->scale_denom = 1;
    for (unsigned d = 8; d > 1; d /= 2) {
        if (in->image_width / d >= 2 * w->width && in->image_height / d >= 2 * w->height) {
            in->scale_denom = d;
            break;
        }
    }
    switch (in->jpeg_color_space) {
    case JCS_GRAYSCALE:
        in->out_color_space = JCS_GRAYSCALE;
        break;
    case JCS_CMYK:
    case JCS_YCCK:
        in->out_color_space = JCS_CMYK;
        break;
    default:
        in->out_color_space = JCS_RGB;
    }
    w->channels = in->out_color_space == JCS_GRAYSCALE ? 1 : 3;
}

static void *must(struct work *w, void *p)
{
    if (!p)
        longjmp(w->out, 1);
    return p;
}

/* Adobe writes CMYK inverted, and nobody else writes it. */
static void cmyk_to_rgb(unsigned char *p, unsigned n)
{
    unsigned char *q = p;
    for (unsigned i = 0; i < n; i++, p += 4, q += 3)
        for (int c = 0; c < 3; c++)
            q[c] = (unsigned char)(p[c] * p[3] / 255);
}

/* Averages a row of n pixels into w->across: each pixel counts by the part of it that lies under the wider one. */
static void average_row(struct work *w, unsigned n)
{
    double step = (double)n / w->width;
    int ch = w->channels;
    for (unsigned x = 0; x < w->width; x++) {
        double from = x * step, to = x + 1 == w->width ? n : from + step;
        float sum[3] = {0, 0, 0}, weight = 0;
        for (unsigned i = (unsigned)from; i < n && i < to; i++) {
            float part = (float)(fmin(to, i + 1.0) - fmax(from, i));
            for (int c = 0; c < ch; c++)
                sum[c] += part * w->row[i * ch + c];
            weight += part;
        }
        for (int c = 0; c < ch; c++)
            w->across[x * ch + c] = sum[c] / weight;
    }
}

static void store_row(struct work *w, unsigned y, float weight)
{
    unsigned n = w->width * w->channels;
    for (unsigned i = 0; i < n; i++) {
        float v = w->sum[i] / weight + 0.5f;
        w->pixels[(size_t)y * n + i] = v > 255 ? 255 : (unsigned char)v;
        w->sum[i] = 0;
    }
}

static void shrink(struct work *w)
{
    struct jpeg_decompress_struct *in = &w->in;
    unsigned n = w->width * w->channels, y = 0;
    double step = (double)in->output_height / w->height;
    float weight = 0;
    while (in->output_scanline < in->output_height) {
        double top = in->output_scanline;
        jpeg_read_scanlines(in, &w->row, 1);
        if (in->out_color_space == JCS_CMYK)
            cmyk_to_rgb(w->row, in->output_width);
        average_row(w, in->output_width);
        while (y < w->height) { /* a row may end one row of the thumbnail and begin the next */
            double end = y + 1 == w->height ? in->output_height : (y + 1) * step;
            float part = (float)(fmin(end, top + 1) - fmax(y * step, top));
            for (unsigned i = 0; i < n && part > 0; i++)
                w->sum[i] += part * w->across[i];
            weight += part > 0 ? part : 0;
            if (end > top + 1)
                break;
            store_row(w, y++, weight);
            weight = 0;
            if (end == top + 1)
                break;
        }
    }
}

static void decode(struct work *w, const unsigned char *data, uint32_t size)
{
    struct jpeg_decompress_struct *in = &w->in;
    jpeg_create_decompress(in);
    in->mem->max_memory_to_use = 512L << 20;
    jpeg_mem_src(in, data, size);
    jpeg_read_header(in, TRUE);
    choose_size(w);
    jpeg_start_decompress(in);
    size_t n = (size_t)w->width * w->channels;
    w->row = must(w, malloc((size_t)in->output_width * in->output_components));
    w->pixels = must(w, calloc(w->height, n));
    w->across = must(w, calloc(n, sizeof *w->across));
    w->sum = must(w, calloc(n, sizeof *w->sum));
    shrink(w);
    jpeg_finish_decompress(in);
}

static void encode(struct work *w)
{
    struct jpeg_compress_struct *to = &w->to;
    jpeg_create_compress(to);
    jpeg_mem_dest(to, &w->encoded, &w->encoded_size);
    to->image_width = w->width;
    to->image_height = w->height;
    to->input_components = w->channels;
    to->in_color_space = w->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(to);
    jpeg_set_quality(to, QUALITY, TRUE);
    to->comp_info[0].h_samp_factor = to->comp_info[0].v_samp_factor = 1; /* colours as sharp as the brightness: it is small */
    jpeg_start_compress(to, TRUE);
    while (to->next_scanline < to->image_height) {
        JSAMPROW row = w->pixels + (size_t)to->next_scanline * w->width * w->channels;
        jpeg_write_scanlines(to, &row, 1);
    }
    jpeg_finish_compress(to);
}

uint32_t thumbnailer(void *args, uint32_t size, void *result)
{
    struct work *w = calloc(1, sizeof *w);
    volatile uint32_t written = 0;
    if (!w)
        return 0;
    w->in.err = w->to.err = jpeg_std_error(&w->errors);
    w->errors.error_exit = fail;
    w->errors.emit_message = note;
    if (size > 0 && setjmp(w->out) == 0) {
        decode(w, args, size);
        encode(w);
        if (w->encoded_size <= THUMBNAIL_MAX) {
            memcpy(result, w->encoded, w->encoded_size);
            written = (uint32_t)w->encoded_size;
        }
    }
    jpeg_destroy_compress(&w->to);
    jpeg_destroy_decompress(&w->in);
    free(w->row);
    free(w->pixels);
    free(w->across);
    free(w->sum);
    free(w->encoded);
    free(w);
    return written;
}
