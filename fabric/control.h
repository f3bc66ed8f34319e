/* Between control.c and dial.c. */
#ifndef GLEANER_CONTROL_H
#define GLEANER_CONTROL_H

#include "conn.h"

/* gf_dial_failed records the first reason for which a dial fails. */
void gf_dial_failed(struct gf_conn *c, int kind, uint32_t code, uint32_t signal, const char *text);
int gf_control_send(struct gf_conn *c, const uint8_t *b, size_t n);
/* gf_accepted takes the executor's terms: uploads the code, makes the arena, attaches. */
void gf_accepted(struct gf_conn *c, const struct gf_frame *f);
/* gf_attach opens the carrier anew and tells the executor. */
void gf_attach(struct gf_conn *c);

#endif
