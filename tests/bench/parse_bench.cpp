// Reading a phone's REGISTER and its Security-Client list: gmgate, libosip2 and sofia-sip in one run, with what each takes from the
// heap. Usage: gm_bench_parse [--smoke]. Ratios are printed, never asserted; a contender that fails to read the input is an error.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <osipparser2/osip_parser.h>
#include <sofia-sip/msg.h>
#include <sofia-sip/sip.h>
#include <sofia-sip/sip_header.h>

#include "sip/credentials.h"
#include "sip/digest.h"
#include "sip/sec_agree.h"
#include "tests/bench/allocations.h"
#include "tests/bench/registers.h"

namespace gmgate::bench {
namespace {

/// One way to read the input. `run` returns 0 when it did not understand it.
struct Contender {
    const char* name;
    std::size_t (*run)(const std::string& input);
};

std::size_t gmgate_message(const std::string& input) {
    const auto message = sip::Message::parse(input);
    return message ? message->field_count() : 0;
}

/// Message::parse, and then every value that the register flow asks for, typed.
std::size_t gmgate_message_and_values(const std::string& input) {
    const auto message = sip::Message::parse(input);
    if (!message) return 0;
    std::size_t understood = sip::top_via(*message).has_value();
    for (const auto id : {sip::HeaderId::from, sip::HeaderId::to, sip::HeaderId::contact}) {
        const auto party = sip::NameAddr::parse(message->value(id));
        understood += party && sip::Uri::parse(party->uri);
    }
    const auto contact = sip::NameAddr::parse(message->value(sip::HeaderId::contact));
    understood += contact && sip::contact_expires(*message, *contact);
    understood += sip::has_option_tag(*message, sip::HeaderId::require, "sec-agree");
    understood += sip::has_option_tag(*message, sip::HeaderId::proxy_require, "sec-agree");
    understood += sip::has_option_tag(*message, sip::HeaderId::supported, "path");
    understood += sip::Credentials::read(*message, sip::HeaderId::authorization).is_digest();
    const auto offer = sip::SecurityList::from(*message, sip::HeaderId::security_client);
    understood += offer && !offer->empty();
    return understood == 10 ? message->field_count() : 0;
}

std::size_t osip_message(const std::string& input) {
    osip_message_t* message = nullptr;
    if (osip_message_init(&message) != 0) return 0;
    const bool is_read = osip_message_parse(message, input.data(), input.size()) == 0 && message->call_id && message->cseq &&
                         osip_list_size(&message->vias) == 1 && osip_list_size(&message->authorizations) == 1;
    osip_message_free(message);
    return is_read;
}

std::size_t sofia_message(const std::string& input) {
    msg_t* message = msg_make(sip_default_mclass(), 0, input.data(), static_cast<ssize_t>(input.size()));
    if (!message) return 0;
    const sip_t* sip = sip_object(message);
    const bool is_read = sip && !sip->sip_error && sip->sip_request && sip->sip_cseq && sip->sip_security_client && sip->sip_authorization;
    msg_destroy(message);
    return is_read;
}

std::size_t gmgate_count(const std::string& input) { return sip::count_mechanisms(input).value_or(0); }

std::size_t gmgate_list(const std::string& input) {
    const auto list = sip::SecurityList::parse(input);
    return list ? list->mechanisms().size() : 0;
}

std::size_t sofia_list(const std::string& input) {
    su_home_t home[1] = {SU_HOME_INIT(home)};
    su_home_init(home);
    std::size_t count = 0;
    for (const auto* entry = sip_security_client_make(home, input.c_str()); entry; entry = entry->sa_next) ++count;
    su_home_deinit(home);
    return count;
}

constexpr Contender kGmgate{"gmgate, Message::parse: checked offsets into the input", gmgate_message};
constexpr Contender kGmgateValues{"gmgate, and each value that the register flow reads", gmgate_message_and_values};
constexpr Contender kOsip{"libosip2, osip_message_parse: known fields decoded, all copied", osip_message};
constexpr Contender kSofia{"sofia-sip, msg_make: input copied, known fields decoded", sofia_message};
constexpr Contender kCount{"gmgate, count_mechanisms: the whole grammar checked", gmgate_count};
constexpr Contender kList{"gmgate, SecurityList::parse: into strings of its own", gmgate_list};
constexpr Contender kSofiaList{"sofia-sip, sip_security_client_make: input copied and cut up", sofia_list};

struct Round {
    std::string title, input;
    std::vector<Contender> contenders;
};

/// Keeps the best CPU time of each benchmark.
class Best final : public benchmark::BenchmarkReporter {
public:
    bool ReportContext(const Context&) override { return true; }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            if (run.run_type != Run::RT_Iteration) continue;
            auto& best = nanoseconds.try_emplace(run.run_name.function_name, std::numeric_limits<double>::max()).first->second;
            best = std::min(best, run.GetAdjustedCPUTime());
        }
    }
    std::map<std::string, double> nanoseconds;
};

void register_round(const Round& round) {
    for (const Contender& contender : round.contenders) {
        if (contender.run(round.input) == 0) throw std::runtime_error(std::string(contender.name) + " does not read " + round.title);
        benchmark::RegisterBenchmark((round.title + ": " + contender.name).c_str(), [&round, run = contender.run](benchmark::State& state) {
            for (auto _ : state) benchmark::DoNotOptimize(run(round.input));
        });
    }
}

/// The first contender is the yardstick.
void print(const Round& round, const Best& best) {
    const auto time = [&](const Contender& c) { return best.nanoseconds.at(round.title + ": " + c.name); };
    std::printf("\n%s, %zu octets\n  %-64s %9s %6s %12s %8s\n", round.title.c_str(), round.input.size(), "", "ns", "times", "allocations",
                "octets");
    for (const Contender& contender : round.contenders) {
        contender.run(round.input);  // what is allocated once in a process is there now
        const Allocations heap = allocations_of([&] { contender.run(round.input); });
        std::printf("  %-64s %9.0f %6.1f %12llu %8llu\n", contender.name, time(contender), time(contender) / time(round.contenders.front()),
                    static_cast<unsigned long long>(heap.calls), static_cast<unsigned long long>(heap.octets));
    }
}

void print_aim(const Round& round, const Best& best, const Contender& peer) {
    const auto time = [&](const Contender& c) { return best.nanoseconds.at(round.title + ": " + c.name); };
    const Contender& ours = round.contenders.front();
    const double ratio = time(peer) / time(ours);
    const auto heap = allocations_of([&] { ours.run(round.input); });
    std::printf("  aim: 10 times faster than libosip2: %s (%.1f times); without an allocation: %s (%llu)\n", ratio >= 10 ? "met" : "NOT MET",
                ratio, heap.calls == 0 ? "met" : "NOT MET", static_cast<unsigned long long>(heap.calls));
    std::printf("  not an aim: with each value that the register flow reads, %.1f times faster than libosip2\n",
                time(peer) / time(round.contenders.at(1)));
}

int run(bool is_smoke) {
    parser_init();
    const std::string iphone = handset_value("iPhone 16e"), samsung = handset_value("Samsung, second registration");
    const std::vector<Contender> parsers{kGmgate, kGmgateValues, kOsip, kSofia}, lists{kCount, kList, kSofiaList};
    const std::vector<Round> messages{{"REGISTER of an iPhone 16e (4 offers)", long_register("iPhone 16e"), parsers},
                                      {"REGISTER of the CMCC capture (6 offers, compact names)", compact_register("CMCC capture"), parsers}};
    const std::vector<Round> values{{"Security-Client of an iPhone 16e (4 offers)", iphone, lists},
                                    {"Security-Client of a Samsung (6 offers)", samsung, lists}};
    for (const Round& round : messages) register_round(round);
    for (const Round& round : values) register_round(round);

    // Interleaved, so that what else happens on the machine meets all of them alike.
    std::vector<std::string> flags{"gm_bench_parse", is_smoke ? "--benchmark_min_time=0.0001" : "--benchmark_min_time=0.05",
                                   is_smoke ? "--benchmark_repetitions=1" : "--benchmark_repetitions=15",
                                   "--benchmark_enable_random_interleaving=true"};
    std::vector<char*> arguments;
    for (std::string& flag : flags) arguments.push_back(flag.data());
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    Best best;
    benchmark::RunSpecifiedBenchmarks(&best);

    std::printf("Parsing, CPU time, best of the repetitions; \"times\" is relative to the first line of each table.%s\n",
                is_smoke ? " Smoke run: the times mean nothing." : "");
    for (const Round& round : messages) {
        print(round, best);
        print_aim(round, best, kOsip);
    }
    for (const Round& round : values) print(round, best);
    return 0;
}

}  // namespace
}  // namespace gmgate::bench

int main(int argc, char** argv) {
    try {
        return gmgate::bench::run(argc > 1 && std::strcmp(argv[1], "--smoke") == 0);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gm_bench_parse: %s\n", e.what());
        return 1;
    }
}
