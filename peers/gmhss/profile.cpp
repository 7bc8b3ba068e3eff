#include "cx.h"

namespace gmgate::peers {
namespace {

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '&') out += "&amp;";
        else if (c == '<') out += "&lt;";
        else if (c == '>') out += "&gt;";
        else out += c;
    }
    return out;
}

std::string element(std::string_view name, std::string_view text) {
    return fmt::format("<{0}>{1}</{0}>", name, escaped(text));
}

/// TS 29.228 Annex B.2.2: a filter without negation, one condition.
std::string register_filter(const std::string& application_server) {
    return "<InitialFilterCriteria><Priority>0</Priority><TriggerPoint><ConditionTypeCNF>1</"
           "ConditionTypeCNF><SPT><ConditionNegated>0</ConditionNegated>"
           "<Group>0</Group><Method>REGISTER</Method></SPT></TriggerPoint><ApplicationServer>" +
           element("ServerName", application_server) + element("DefaultHandling", "0") +
           "</ApplicationServer></InitialFilterCriteria>";
}

}  // namespace

std::string profile_document(const std::string& impi, const std::vector<std::string>& impus,
                             const std::string& application_server) {
    std::string profile;
    for (const std::string& impu : impus)
        profile +=
            "<PublicIdentity>" + element("BarringIndication", "0") + element("Identity", impu) + "</PublicIdentity>";
    if (!application_server.empty()) profile += register_filter(application_server);
    return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><IMSSubscription>" + element("PrivateID", impi) +
           "<ServiceProfile>" + profile + "</ServiceProfile></IMSSubscription>";
}

}  // namespace gmgate::peers
