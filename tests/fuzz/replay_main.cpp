// Runs a fuzz target over the files of a corpus directory and over deterministic mutations of them, without a fuzzing
// engine:
//   replay CORPUS_DIRECTORY [MUTATIONS_PER_FILE]
// Ends with 0 when no invariant broke, 2 when there was nothing to run.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size);

namespace {

void run(const std::string& input) {
    // An exact copy on the heap, so that AddressSanitizer sees a read beyond the end.
    const std::vector<unsigned char> bytes(input.begin(), input.end());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

/// One to four small changes: an octet, a cut, a doubled stretch, a piece of another file, an octet that parsers care
/// about.
std::string mutate(std::string text, const std::vector<std::string>& corpus, std::mt19937& random) {
    const auto below = [&random](std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random() % n); };
    constexpr std::string_view kSpecial("\0\r\n\t \",;:=<>\\/@?[]0-", 21);
    for (std::size_t round = 1 + below(4); round > 0; --round) {
        const std::size_t at = below(text.size() + 1);
        const std::size_t length = std::min(below(40), text.size() - at);
        switch (random() % 6) {
            case 0:
                if (at < text.size()) text[at] = static_cast<char>(random());
                break;
            case 1:
                text.erase(at, length);
                break;
            case 2:
                text.insert(at, text.substr(at, length));
                break;
            case 3:
                text.insert(at, 1, kSpecial[below(kSpecial.size())]);
                break;
            case 4:
                if (at < text.size()) text[at] = kSpecial[below(kSpecial.size())];
                break;
            default: {
                const std::string& other = corpus[below(corpus.size())];
                const std::size_t from = below(other.size() + 1);
                text.insert(at, other.substr(from, below(60)));
            }
        }
    }
    return text;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::fprintf(stderr, "usage: %s CORPUS_DIRECTORY [MUTATIONS_PER_FILE]\n", argv[0]), 2;
    const unsigned long mutations = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1000;
    std::vector<std::filesystem::path> files;
    std::error_code problem;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1], problem))
        if (entry.is_regular_file()) files.push_back(entry.path());
    std::ranges::sort(files);
    std::vector<std::string> corpus;
    for (const auto& path : files) {
        std::ifstream file(path, std::ios::binary);
        corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    if (corpus.empty()) return std::fprintf(stderr, "%s: no corpus\n", argv[1]), 2;
    std::mt19937 random(20261123);  // the same inputs in every run
    for (const std::string& text : corpus) {
        run(text);
        for (unsigned long i = 0; i < mutations; ++i) run(mutate(text, corpus, random));
    }
    std::printf("%zu files, %lu mutations each: no invariant broke\n", corpus.size(), mutations);
    return 0;
}
