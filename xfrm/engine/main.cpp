// gmgate-xfrmd: the SA engine of gmgated in a process of its own. gmgated starts it; nobody else has a reason to.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/socket.h>

#include "base/journal.h"
#include "base/log.h"
#include "xfrm/engine/guardian.h"
#include "xfrm/engine/protocol.h"
#include "xfrm/engine/worker.h"

namespace {

constexpr std::string_view kHelp =
    R"(gmgate-xfrmd: the SA engine of gmgated in a process of its own, with CAP_NET_ADMIN and nothing else. gmgated starts it.

Usage: gmgate-xfrmd --guardian [--engine FILE]
       gmgate-xfrmd --worker

Options:
  -h,--help                   Print this help message and exit
  --version                   Display program version information and exit
  --guardian                  start the worker and start it again, for the gmgated at descriptor 3
  --engine FILE               with --guardian: the program of the worker, for another engine; this one when not given
  --worker                    be the worker, for the guardian and gmgated at descriptor 3
)";

bool is_seqpacket(int descriptor) {
    int type = 0;
    socklen_t length = sizeof type;
    return getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

int wrong(const char* what) {
    std::fprintf(stderr, "gmgate-xfrmd: %s; see --help\n", what);
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    bool guardian = false, worker = false;
    std::string engine;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word == "-h" || word == "--help")
            return std::fwrite(kHelp.data(), 1, kHelp.size(), stdout) == kHelp.size() ? 0 : 1;
        if (word == "--version") return std::puts(GMGATE_VERSION) >= 0 ? 0 : 1;
        if (word == "--guardian") guardian = true;
        else if (word == "--worker") worker = true;
        else if (word == "--engine" && i + 1 < argc) engine = argv[++i];
        else return wrong("an argument is unknown");
    }
    if (guardian == worker) return wrong("it is either the guardian or the worker");
    if (!is_seqpacket(GM_WORK_FD)) return wrong("descriptor 3 is no socket of gmgated's: gmgated starts this program");
    gmgate::log::start(gmgate::is_journal_stream(std::getenv("JOURNAL_STREAM"), STDERR_FILENO));
    return guardian ? gmgate::xfrm::guard(engine) : gmgate::xfrm::work();
}
