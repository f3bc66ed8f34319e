# The sandbox's own suite in a virtual machine with pure cgroup v2; this host may have v1. Skipped, with the reason, where QEMU is missing.
VM_PACKAGES = qemu-system-x86 busybox-static kmod cpio python3 iproute2
VM_RDMA_PACKAGES = rdma-core ibverbs-utils ibverbs-providers perftest libfabric-bin

.PHONY: test-v2
test-v2: ## sandbox suite on cgroup v2, in a virtual machine
	test/vm/sandbox
