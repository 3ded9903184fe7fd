// Makes elements. Text goes in as text, never as markup: nothing that a box or a bundle says can become part of the page.

// An element with properties ("class", "text", "on…" and attributes) and children; what is null or false is left out.
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  add(made, children);
  return made;
}

export function add(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
  return parent;
}

// Puts other children in the place of all there are.
export function fill(parent, ...children) {
  parent.replaceChildren();
  return add(parent, children);
}

export const byId = (id) => document.getElementById(id);

// A list of names and values; pairs without a value are left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
  return el("dl", { class: "facts" }, known.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", {}, value))));
}

// Reads JSON from the box. A session that is over leads to the login page.
export async function read(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("login");
  }
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}
