// main() of the test programs that run on the machine itself, beside whatever else it does.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tests/support/own_network.h"

int main(int argc, char** argv) {
    gmgate::test::enter_own_network();
    return doctest::Context(argc, argv).run();
}
