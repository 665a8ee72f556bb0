from hasher.service import main

main()
