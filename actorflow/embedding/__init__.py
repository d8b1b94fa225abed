"""Ways into a program that is there already: web apps, programs that block, signals. No framework is imported here."""
