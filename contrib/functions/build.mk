# Example functions and their tests; included by the top Makefile.
FUNCTIONS_DIR := contrib/functions
FUNCTIONS := $(BUILD)/lib/gleaner/functions

BUILD_TARGETS += $(FUNCTIONS)/thumbnailer.so $(FUNCTIONS)/blackscholes.so $(FUNCTIONS)/resident.so
C_TESTS += $(BUILD)/test/thumbnailer_test $(BUILD)/test/blackscholes_test

$(FUNCTIONS)/thumbnailer.so: FUNCTION_LIBS := -ljpeg -lm
$(FUNCTIONS)/blackscholes.so: FUNCTION_LIBS := -lm
$(FUNCTIONS)/%.so: $(FUNCTIONS_DIR)/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O3 -g -Wall -Wextra -Werror -fPIC -shared -fvisibility=default -o $@ $< $(FUNCTION_LIBS)

$(BUILD)/test/thumbnailer_test: FUNCTION_LIBS := -ljpeg -lm
$(BUILD)/test/blackscholes_test: FUNCTION_LIBS := -lm
$(BUILD)/test/thumbnailer_test $(BUILD)/test/blackscholes_test: $(BUILD)/test/%_test: $(FUNCTIONS_DIR)/%_test.c $(FUNCTIONS_DIR)/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all -o $@ $< $(FUNCTION_LIBS)
