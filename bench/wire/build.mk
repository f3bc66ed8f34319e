# What 'gleaner bench invoke' runs beside itself: bare carriers, the C client, and a function that echoes.
WIRE_SOURCES := $(wildcard bench/wire/*.c) $(addprefix fabric/,carrier.c conn.c control.c dial.c frame.c layout.c libfabric.c ofi.c)
WIRE_SOURCES := $(filter-out bench/wire/echo.c,$(WIRE_SOURCES))

$(BUILD)/libexec/gleaner/wire: $(WIRE_SOURCES) bench/wire/wire.h $(wildcard fabric/*.h)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Ifabric -o $@ $(WIRE_SOURCES) -ldl -lpthread

$(BUILD)/lib/gleaner/functions/echo.so: bench/wire/echo.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared -fPIC -o $@ $<

BUILD_TARGETS += $(BUILD)/libexec/gleaner/wire $(BUILD)/lib/gleaner/functions/echo.so
