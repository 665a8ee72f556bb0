// Six writers at once, in processes of their own, and a reader. One of the writers asks, and nobody may lose what it
// asked; the others say that somebody was there. Run as `node -e "$SCRIPT"`; prints what was seen.
const { ask, notePresence } = require("/opt/code-server/lib/vscode/extensions/gunpowder/channel");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const LAPS = 60;
const read = () => JSON.parse(fs.readFileSync("/run/gunpowder/report.json", "utf8"));

async function write(number) {
  const lost = [];
  for (let lap = 0; lap < LAPS; lap += 1) {
    if (number > 0) await notePresence(lap * 10 + number, "terminal");
    else {
      const id = await ask("cancel");
      if (read().request.id !== id) lost.push(lap);
    }
  }
  return lost;
}

async function all() {
  await notePresence(1, "opened");
  let reads = 0, torn = 0, longest = 0;
  const timer = setInterval(() => {
    try {
      reads += 1;
      const text = fs.readFileSync("/run/gunpowder/report.json", "utf8");
      longest = Math.max(longest, text.length);
      JSON.parse(text);
    } catch {
      torn += 1;
    }
  }, 1);
  const ends = [0, 1, 2, 3, 4, 5].map((number) => new Promise((done) => {
    const command = ["-e", process.env.SCRIPT, String(number)];
    const child = spawn("node", command, { stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    child.stdout.on("data", (data) => (said += data));
    child.on("close", (code) => done(code === 0 ? JSON.parse(said) : ["status", code]));
  }));
  const lost = (await Promise.all(ends)).flat();
  clearInterval(timer);
  const left = fs.readdirSync("/run/gunpowder");
  const [presence, most] = [read().presence.at, (LAPS - 1) * 10 + 5];
  console.log(JSON.stringify({ lost, reads, torn, longest, left, presence, most }));
}

const [number] = process.argv.slice(1);
if (number === undefined) all();
else write(Number(number)).then((lost) => console.log(JSON.stringify(lost)));
