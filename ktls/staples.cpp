#include "ktls/staples.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <memory>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include "ktls/freer.h"

namespace gmgate::ktls {
namespace {

using Time = std::chrono::system_clock::time_point;

using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using ResponsePtr = std::unique_ptr<OCSP_RESPONSE, Freer<OCSP_RESPONSE_free>>;
using BasicPtr = std::unique_ptr<OCSP_BASICRESP, Freer<OCSP_BASICRESP_free>>;
using StorePtr = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;

std::unexpected<Error> refuse(const std::string& file, const std::string& why) {
    ERR_clear_error();
    return failure(Reaction::refused, "the OCSP response " + file + " " + why);
}

/// The answer that is about this certificate, by its serial number.
OCSP_SINGLERESP* answer_about(OCSP_BASICRESP* basic, const X509* certificate) {
    for (int i = 0; i < OCSP_resp_count(basic); ++i) {
        OCSP_SINGLERESP* single = OCSP_resp_get0(basic, i);
        ASN1_INTEGER* serial = nullptr;
        auto* id = const_cast<OCSP_CERTID*>(OCSP_SINGLERESP_get0_id(single));
        if (OCSP_id_get0_info(nullptr, nullptr, nullptr, &serial, id) == 1 &&
            ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) == 0)
            return single;
    }
    return nullptr;
}

// The issuer, or whom he charged with it (RFC 6960 §4.2.2.2). Without an issuer in the file nothing can be said.
bool is_signed_by_issuer(OCSP_BASICRESP* basic, STACK_OF(X509) * chain) {
    if (chain == nullptr || sk_X509_num(chain) == 0) return true;
    const StorePtr store(X509_STORE_new());
    X509_STORE_add_cert(store.get(), sk_X509_value(chain, 0));
    X509_STORE_set_flags(store.get(), X509_V_FLAG_PARTIAL_CHAIN);
    const bool verified = OCSP_basic_verify(basic, chain, store.get(), 0) == 1;
    ERR_clear_error();
    return verified;
}

Time end_of(const ASN1_GENERALIZEDTIME* next_update) {
    std::tm parts{};
    if (next_update == nullptr || ASN1_TIME_to_tm(next_update, &parts) != 1) return Time::max();
    return std::chrono::system_clock::from_time_t(timegm(&parts));
}

std::vector<unsigned char> encoded(OCSP_RESPONSE* response) {
    std::vector<unsigned char> octets(static_cast<std::size_t>(std::max(i2d_OCSP_RESPONSE(response, nullptr), 0)));
    unsigned char* place = octets.data();
    i2d_OCSP_RESPONSE(response, &place);
    return octets;
}

int status_callback(SSL* ssl, void* argument) {
    const auto now = std::chrono::system_clock::now();
    for (const Staple& staple : *static_cast<const std::vector<Staple>*>(argument)) {
        if (staple.certificate != SSL_get_certificate(ssl) || staple.ends <= now) continue;
        void* copy = OPENSSL_memdup(staple.octets.data(), staple.octets.size());
        if (copy == nullptr) break;
        SSL_set_tlsext_status_ocsp_resp(ssl, static_cast<unsigned char*>(copy),
                                        static_cast<long>(staple.octets.size()));  // owns the copy
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

Result<Staple> load_staple(const std::string& file, x509_st* certificate, stack_st_X509* chain) {
    const BioPtr bio(BIO_new_file(file.c_str(), "rb"));
    if (!bio) {
        const int code = errno;
        ERR_clear_error();
        return system_failure(Reaction::refused, "cannot read the OCSP response " + file, code);
    }
    const ResponsePtr response(d2i_OCSP_RESPONSE_bio(bio.get(), nullptr));
    if (!response) return refuse(file, "is none: it must be DER, as openssl ocsp -respout writes it");
    if (OCSP_response_status(response.get()) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return refuse(file, "tells that the responder did not answer: fetch another one");
    const BasicPtr basic(OCSP_response_get1_basic(response.get()));
    OCSP_SINGLERESP* single = basic ? answer_about(basic.get(), certificate) : nullptr;
    if (single == nullptr) return refuse(file, "is about another certificate: name the files of one certificate");
    int reason = 0;
    ASN1_GENERALIZEDTIME *revoked = nullptr, *this_update = nullptr, *next_update = nullptr;
    const int status = OCSP_single_get0_status(single, &reason, &revoked, &this_update, &next_update);
    if (status == V_OCSP_CERTSTATUS_REVOKED) return refuse(file, "says that the certificate is revoked: replace it");
    if (status != V_OCSP_CERTSTATUS_GOOD) return refuse(file, "does not say that the certificate is good");
    if (!is_signed_by_issuer(basic.get(), chain))
        return refuse(file,
                      "is not signed by the issuer of the certificate: fetch it from the certificate's responder");
    return Staple{certificate, encoded(response.get()), end_of(next_update)};
}

void show_staples(ssl_ctx_st* context, const std::vector<Staple>& staples) {
    SSL_CTX_set_tlsext_status_cb(context, status_callback);
    SSL_CTX_set_tlsext_status_arg(context, const_cast<std::vector<Staple>*>(&staples));
}

}  // namespace gmgate::ktls
