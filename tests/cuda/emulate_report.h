// What an observer has to say of a launch, each pair of places in the code once.
#pragma once

#include <functional>
#include <string>
#include <tuple>

namespace emulate {

using Subject = std::tuple<std::string, const void*, const void*>;  // kind, and places
void report(const Subject& subject, const std::function<std::string()>& text);
void clear_reports();
void throw_reports();                   // std::logic_error, if there are any
std::string line_of(const void* from);  // the lines, innermost first, of a call that returns there
bool in_program(const void* pointer);   // whether it points into the emulator's own constants and variables

}  // namespace emulate
