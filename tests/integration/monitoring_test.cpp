// A real Prometheus scrapes the running gateway with the packaged configuration: every query of the Grafana dashboard
// has an answer, every alert rule is evaluated, and the first alert is raised when the gateway is gone.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/integration/operator.h"
#include "tests/integration/tls_lab.h"

using namespace gmgate::test;

namespace {

const std::filesystem::path kPackaging = GMGATE_PACKAGING;
const std::string kPrometheus = "http://127.0.0.1:9090";

/// With the packaged files, at a pace for tests.
std::unique_ptr<Program> start_prometheus(const Lab& lab) {
    const std::filesystem::path folder = lab.folder() + "/prometheus";
    std::filesystem::create_directories(folder);
    std::filesystem::copy(kPackaging / "prometheus/gmgate.rules.yml", folder);
    std::ofstream(folder / "prometheus.yml") << "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                                             << std::ifstream(kPackaging / "prometheus/prometheus.yml").rdbuf();
    return std::make_unique<Program>(ProgramOptions{
        .command = {"prometheus", "--config.file=" + (folder / "prometheus.yml").string(),
                    "--storage.tsdb.path=" + (folder / "data").string(), "--web.listen-address=127.0.0.1:9090"},
        .name = "prometheus",
        .network = &lab.network.gw});
}

std::string check(const Lab& lab, std::vector<std::string> words) {
    words.insert(words.begin(), GMGATE_PROMETHEUS_CHECK);
    return run_program({.command = std::move(words), .name = "check", .network = &lab.network.gw}, {},
                       std::chrono::minutes(5));  // it has a patience of its own
}

}  // namespace

TEST_SUITE("monitoring") {
    TEST_CASE("Prometheus: the page, every query of the dashboard, every rule, and an alert") {
        TlsLab tls({.top_lines = "metrics-listen = \"127.0.0.1:9464\"\n"});
        auto& lab = *tls.lab;
        const auto prometheus = start_prometheus(lab);
        Phone phone(lab, {}), secure(lab, {.user = 1, .arguments = tls.phone_arguments("tls", "1.3")});
        phone.demand_registered();
        secure.demand_registered();
        check(lab, {"holds", kPrometheus, "gmgate_xfrm_total == 0"});  // what grows afterwards has a rate
        ask_gmctl(lab, {"deregister", impi_of_user(0)});
        phone.start_message(phone.impu(),
                            "over-a-stale-sa");  // the panel of what XFRM dropped shows what is more than 0
        CHECK(eventually([&] { return xfrm_counters(lab.network.gw).at("XfrmInNoStates") > 0; }));

        check(lab, {"holds", kPrometheus, "gmgate_xfrm_total{name=\"XfrmInNoStates\"} > 0"});
        check(lab, {"page", "http://127.0.0.1:9464/metrics"});
        MESSAGE(check(lab, {"dashboard", kPrometheus, kPackaging / "grafana/gmgate.json"}));
        MESSAGE(check(lab, {"rules", kPrometheus, kPackaging / "prometheus/gmgate.rules.yml"}));
        lab.kill_gateway();
        check(lab, {"alert", kPrometheus, "GmgateDown"});
    }
}
