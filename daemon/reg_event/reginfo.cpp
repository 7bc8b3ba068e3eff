#include "daemon/reg_event/reginfo.h"

#include <expat.h>

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "sip/message/headers.h"

namespace gmgate::daemon {

namespace {

constexpr std::string_view kNamespace = "urn:ietf:params:xml:ns:reginfo\n";  // as expat writes it, with our separator
constexpr char kSeparator = '\n';

class Reader {
public:
    explicit Reader(const RegInfoLimits& limits)
        : limits_(limits), parser_(XML_ParserCreateNS(nullptr, kSeparator), &XML_ParserFree) {
        if (!parser_) return;
        XML_SetUserData(parser_.get(), this);
        XML_SetElementHandler(
            parser_.get(),
            [](void* self, const XML_Char* name, const XML_Char** attributes) {
                static_cast<Reader*>(self)->begin(name, attributes);
            },
            [](void* self, const XML_Char* name) { static_cast<Reader*>(self)->end(name); });
        XML_SetCharacterDataHandler(parser_.get(), [](void* self, const XML_Char* text, int size) {
            auto* reader = static_cast<Reader*>(self);
            if (reader->part_ != Part::none) reader->text_.append(text, static_cast<std::size_t>(size));
        });
        XML_SetStartDoctypeDeclHandler(parser_.get(),
                                       [](void* self, const XML_Char*, const XML_Char*, const XML_Char*, int) {
                                           static_cast<Reader*>(self)->stop("a DTD is not accepted");
                                       });
    }

    Result<RegInfo> read(std::string_view document) {
        if (!parser_) return failure(Reaction::retry, "no memory for an XML parser");
        if (document.size() > limits_.octets)
            return failure(Reaction::reject,
                           fmt::format("reginfo: {} octets, more than {}", document.size(), limits_.octets));
        const auto status = XML_Parse(parser_.get(), document.data(), static_cast<int>(document.size()), XML_TRUE);
        if (!why_.empty())
            return failure(Reaction::reject,
                           fmt::format("reginfo, line {}: {}", XML_GetCurrentLineNumber(parser_.get()), why_));
        if (status != XML_STATUS_OK)
            return failure(Reaction::reject,
                           fmt::format("reginfo, line {}: {}", XML_GetCurrentLineNumber(parser_.get()),
                                       XML_ErrorString(XML_GetErrorCode(parser_.get()))));
        if (!is_reginfo_) return failure(Reaction::reject, "reginfo: the document is of another kind");
        return std::move(info_);
    }

private:
    /// Of a contact, while its text is gathered.
    enum class Part { none, uri, instance, reg_id };

    void stop(std::string why) {
        if (why_.empty()) why_ = std::move(why);
        XML_StopParser(parser_.get(), XML_FALSE);
    }
    static std::string_view attribute(const XML_Char** attributes, std::string_view name) {
        for (; *attributes != nullptr; attributes += 2)
            if (name == attributes[0]) return attributes[1];
        return {};
    }
    static std::string_view local_name(std::string_view name) {
        return name.starts_with(kNamespace) ? name.substr(kNamespace.size()) : std::string_view();
    }

    void begin(std::string_view name, const XML_Char** attributes) {
        if (++depth_ > limits_.depth) return stop("nested too deeply");
        if (++elements_ > limits_.elements) return stop("too many elements");
        const std::string_view local = local_name(name);
        text_.clear();
        part_ = Part::none;
        if (depth_ == 1) return begin_reginfo(local, attributes);
        if (depth_ == 2 && local == "registration") return begin_registration(attributes);
        in_registration_ = in_registration_ && depth_ > 2;
        if (depth_ == 3 && in_registration_) {
            in_contact_ = local == "contact";
            if (in_contact_) begin_contact(attributes);
            return;
        }
        if (depth_ == 4 && in_registration_ && in_contact_) part_ = part_of_contact(local, attributes);
    }

    static Part part_of_contact(std::string_view local, const XML_Char** attributes) {
        if (local == "uri") return Part::uri;
        if (local != "unknown-param") return Part::none;
        const std::string_view name = attribute(attributes, "name");
        if (sip::same_token(name, "+sip.instance")) return Part::instance;
        return sip::same_token(name, "reg-id") ? Part::reg_id : Part::none;
    }

    void end(std::string_view name) {
        if (depth_ == 4 && part_ != Part::none) end_part();
        if (depth_ == 3 && local_name(name) == "contact") in_contact_ = false;
        --depth_;
    }

    void end_part() {
        RegInfoContact& contact = info_.registrations.back().contacts.back();
        const auto value = std::string(sip::trim(text_));
        switch (std::exchange(part_, Part::none)) {
            case Part::none:
                break;
            case Part::uri:
                if (!contact.uri.empty()) return stop("a contact with two URIs");
                contact.uri = value;
                break;
            case Part::instance:
                contact.instance = std::string(sip::unquote(value));
                break;
            case Part::reg_id:
                contact.reg_id = std::string(sip::unquote(value));
                break;
        }
    }

    void begin_reginfo(std::string_view local, const XML_Char** attributes) {
        if (local != "reginfo") return stop("the outermost element is not reginfo");
        is_reginfo_ = true;
        const auto version = sip::parse_u32(attribute(attributes, "version"));
        const std::string_view state = attribute(attributes, "state");
        if (!version) return stop("version is no number");
        if (state != "full" && state != "partial") return stop("state of reginfo is neither full nor partial");
        info_.version = *version;
        info_.is_full = state == "full";
    }

    void begin_registration(const XML_Char** attributes) {
        const std::string_view state = attribute(attributes, "state");
        if (state != "init" && state != "active" && state != "terminated")
            return stop("state of a registration is none of init, active, terminated");
        RegInfoRegistration registration;
        registration.aor = std::string(attribute(attributes, "aor"));
        registration.is_terminated = state == "terminated";
        info_.registrations.push_back(std::move(registration));
        in_registration_ = true;
        in_contact_ = false;
    }

    void begin_contact(const XML_Char** attributes) {
        const std::string_view state = attribute(attributes, "state"), expires = attribute(attributes, "expires");
        if (state != "active" && state != "terminated")
            return stop("state of a contact is neither active nor terminated");
        RegInfoContact contact;
        contact.is_active = state == "active";
        contact.event = std::string(attribute(attributes, "event"));
        if (!expires.empty()) {
            const auto seconds = sip::parse_u32(expires);
            if (!seconds) return stop("expires of a contact is no number");
            contact.expires = std::chrono::seconds{*seconds};
        }
        info_.registrations.back().contacts.push_back(std::move(contact));
    }

    const RegInfoLimits& limits_;
    std::unique_ptr<XML_ParserStruct, decltype(&XML_ParserFree)> parser_;
    RegInfo info_;
    std::string text_, why_;
    std::size_t depth_ = 0, elements_ = 0;
    bool is_reginfo_ = false, in_registration_ = false, in_contact_ = false;
    Part part_ = Part::none;
};

}  // namespace

Result<RegInfo> parse_reginfo(std::string_view document, const RegInfoLimits& limits) {
    Reader reader(limits);
    return reader.read(document);
}

}  // namespace gmgate::daemon
