// Sends a line to a function that reverses it, from C++: gleaner run --function libreverse.so:reverse -- ./hello-c++
#include <iostream>
#include <memory>
#include <string>

#include <gleaner.h>

int main() {
	gleaner *lease = nullptr;
	int rc = gleaner_init(&lease, nullptr);
	if (rc != GLEANER_OK) {
		std::cerr << gleaner_text(rc) << ": " << gleaner_detail() << "\n";
		return 1;
	}
	std::unique_ptr<gleaner, void (*)(gleaner *)> owner(lease, gleaner_finish);
	const std::string line = "hello from C++";
	std::string answer(line.size(), '\0');
	uint32_t bytes = 0;
	rc = gleaner_run(lease, line.data(), static_cast<uint32_t>(line.size()), &answer[0], static_cast<uint32_t>(answer.size()), &bytes);
	if (rc != GLEANER_OK) {
		std::cerr << gleaner_text(rc) << ": " << gleaner_detail() << "\n";
		return 1;
	}
	std::cout << answer.substr(0, bytes) << "\n";
}
