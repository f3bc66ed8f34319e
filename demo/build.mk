# What the demo needs: its photographs, the program that judges the outcome, and the witness.
DEMO_PACKAGES := opencv-doc lomiri-wallpapers-16.04
APT_OPTIONAL += $(DEMO_PACKAGES)

BUILD_TARGETS += demo-judge
.PHONY: demo-judge
demo-judge:
	@mkdir -p $(BUILD)/demo
	@$(GO) build -trimpath -o $(BUILD)/demo/judge ./demo/judge
